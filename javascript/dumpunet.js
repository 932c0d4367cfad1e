// Cosmetics of Dump U-Net's panel: tooltips on its controls, and red for what it says under the gallery.

(function () {
    function root() {
        return typeof gradioApp === "function" ? gradioApp() : document;
    }

    function addTooltips() {
        root().querySelectorAll(".dumpunet-tooltips:not([data-done])").forEach(function (holder) {
            var texts = JSON.parse(holder.dataset.tooltips);
            Object.keys(texts).forEach(function (id) {
                var control = root().querySelector("#" + id);
                if (control) control.title = texts[id];
            });
            if (root().querySelector("#" + Object.keys(texts)[0])) holder.dataset.done = "1";
        });
    }

    function markMessages() {
        root().querySelectorAll("p.comments").forEach(function (line) {
            if (line.classList.contains("dumpunet-mistake")) return;
            if (!line.textContent.trim().startsWith("Dump U-Net:")) return;
            // Line breaks come twice, as an element and as a character, which counts once spaces are kept.
            line.innerHTML = line.innerHTML.replace(/<br>\n/g, "<br>");
            line.classList.add("dumpunet-mistake");
        });
    }

    function update() {
        addTooltips();
        markMessages();
    }

    if (typeof onAfterUiUpdate === "function") {
        onAfterUiUpdate(update);
    } else {
        // Not the webui's page: the panel may be drawn at any time.
        new MutationObserver(update).observe(document.documentElement, {childList: true, subtree: true});
        update();
    }
})();
