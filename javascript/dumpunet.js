// Cosmetics of Dump U-Net's panel: tooltips on its controls, carets in view, red for what it says under the gallery.

(function () {
    function root() {
        return typeof globalThis.gradioApp === "function" ? globalThis.gradioApp() : document;
    }

    // Tabs may be drawn when they are opened, and controls again when they are shown.
    function addTooltips() {
        root().querySelectorAll(".dumpunet-tooltips").forEach(function (holder) {
            var texts = holder.texts = holder.texts || JSON.parse(holder.dataset.tooltips);
            Object.keys(texts).forEach(function (id) {
                var control = root().querySelector("#" + id);
                if (control && !control.title) control.title = texts[id];
            });
        });
    }

    function showCarets() {
        root().querySelectorAll(".dumpunet-spot:not([data-done])").forEach(function (spot) {
            spot.dataset.done = "1";
            spot.scrollLeft = spot.lastElementChild.offsetLeft - spot.clientWidth * 0.7;
        });
    }

    // Old Gradio drops changes that come faster than answers do; a text is looked at once more when typing rests.
    var resting = new WeakMap();
    document.addEventListener("input", function (event) {
        var field = /** @type {HTMLElement} */ (event.composedPath()[0]);
        if (!field.closest || !field.closest(".dumpunet-field")) return;
        clearTimeout(resting.get(field));
        resting.set(field, setTimeout(function () {
            field.dispatchEvent(new Event("blur"));
        }, 400));
    });

    // A table of blocks is looked up again as it is opened, since the model may have been loaded meanwhile.
    document.addEventListener("click", function (event) {
        var opened = /** @type {HTMLElement} */ (event.composedPath()[0]);
        var box = opened.closest && opened.closest("[id^=dumpunet-][id$=-info]");
        var again = /** @type {HTMLElement} */ (box && box.querySelector(".dumpunet-again"));
        if (again && !opened.closest(".dumpunet-table-box") && opened !== again) again.click();
    });

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
        showCarets();
        markMessages();
    }

    if (typeof globalThis.onAfterUiUpdate === "function") {
        globalThis.onAfterUiUpdate(update);
    } else {
        // Not the webui's page: the panel may be drawn at any time.
        new MutationObserver(update).observe(document.documentElement, {childList: true, subtree: true});
        update();
    }
})();
