// Cosmetics of Dump U-Net's panel: tooltips on controls, carets kept in view, red for its messages under the gallery.

(function () {
    function root() {
        return typeof globalThis.gradioApp === "function" ? globalThis.gradioApp() : document;
    }

    // Tabs may be rendered only when opened, and controls again when shown.
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

    // Old Gradio drops changes that come faster than responses, so a text is checked again when typing pauses.
    var resting = new WeakMap();
    document.addEventListener("input", function (event) {
        var field = /** @type {HTMLElement} */ (event.composedPath()[0]);
        if (!field.closest || !field.closest(".dumpunet-field")) return;
        clearTimeout(resting.get(field));
        resting.set(field, setTimeout(function () {
            field.dispatchEvent(new Event("blur"));
        }, 400));
    });

    // A table of blocks is refreshed when it is opened, because the model may have been loaded since.
    document.addEventListener("click", function (event) {
        var opened = /** @type {HTMLElement} */ (event.composedPath()[0]);
        var box = opened.closest && opened.closest("[id^=dumpunet-][id$=-info]");
        var again = /** @type {HTMLElement} */ (box && box.querySelector(".dumpunet-again"));
        if (again && !opened.closest(".dumpunet-table-box") && opened !== again) again.click();
    });

    function markMessages() {
        // Mistakes stand beside an image, or in the error that ended a plot.
        root().querySelectorAll("p.comments, [id^=html_log_] .error").forEach(function (line) {
            if (line.classList.contains("dumpunet-mistake")) return;
            if (!/^\s*(Refused: )?Dump U-Net:/.test(line.textContent)) return;
            // Line breaks come twice, as an element and as a character, which both show once white space is kept.
            line.innerHTML = line.innerHTML.replace(/<br>\n/g, "<br>").replace(
                /Dump U-Net: Explorer page of image [^<]*/g, '<span class="dumpunet-found">$&</span>');
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
        // Outside the webui, the panel may be rendered at any time.
        new MutationObserver(update).observe(document.documentElement, {childList: true, subtree: true});
        update();
    }
})();
