// The studio's gallery: a click enlarges a picture and shows its statistics, and menus filter the pictures.

(function () {
    var chosen = {image: "", block: "", step: ""};
    var dialog, shown;

    /** @param {ParentNode} within @param {string} selector @returns {any[]} */
    function all(within, selector) {
        return Array.from(within.querySelectorAll(selector));
    }

    function thumbs() {
        return all(document, ".studio-thumb").filter(function (thumb) {
            return thumb.offsetParent !== null;
        });
    }

    function add(parent, name, text) {
        var element = document.createElement(name);
        element.textContent = text || "";
        parent.append(element);
        return element;
    }

    function build() {
        dialog = document.createElement("dialog");
        dialog.id = "studio-large";
        dialog.setAttribute("aria-labelledby", "studio-large-text");
        var bar = add(dialog, "div");
        bar.className = "studio-bar";
        add(bar, "h2").id = "studio-large-text";
        var buttons = add(bar, "div");
        [["Previous", -1], ["Next", 1]].forEach(function (way) {
            add(buttons, "button", way[0]).addEventListener("click", function () {
                move(way[1]);
            });
        });
        add(buttons, "button", "Close").addEventListener("click", function () {
            dialog.close();
        });
        add(dialog, "img");
        add(dialog, "dl");
        dialog.addEventListener("keydown", function (event) {
            if (event.key === "ArrowRight") move(1);
            if (event.key === "ArrowLeft") move(-1);
        });
        dialog.addEventListener("click", function (event) {
            if (event.target === dialog) dialog.close();
        });
        document.body.append(dialog);
    }

    function show(thumb) {
        if (!dialog) build();
        shown = thumb.dataset.full;
        dialog.querySelector("h2").textContent = thumb.dataset.text;
        var image = dialog.querySelector("img");
        image.src = thumb.dataset.full;
        image.alt = thumb.dataset.text;
        var list = dialog.querySelector("dl");
        list.textContent = "";
        Object.entries(JSON.parse(thumb.dataset.numbers)).forEach(function (pair) {
            var line = add(list, "div");
            add(line, "dt", pair[0]);
            add(line, "dd", pair[1]);
        });
        if (!dialog.open) dialog.showModal();
    }

    function move(by) {
        var seen = thumbs();
        var at = seen.findIndex(function (thumb) {
            return thumb.dataset.full === shown;
        });
        var next = seen[at + by];
        if (next) show(next);
    }

    document.addEventListener("click", function (event) {
        var thumb = /** @type {HTMLElement} */ (event.target).closest(".studio-thumb");
        if (thumb) show(thumb);
    });

    document.addEventListener("change", function (event) {
        var menu = /** @type {HTMLSelectElement} */ (event.target);
        var name = menu.dataset && menu.dataset.filter;
        if (!name) return;
        chosen[name] = menu.value;
        filter();
    });

    function filter() {
        all(document, ".studio-gallery section").forEach(function (section) {
            section.hidden = Boolean(chosen.image) && section.dataset.image !== chosen.image;
        });
        all(document, ".studio-block").forEach(function (block) {
            var left = 0;
            all(block, ".studio-thumb").forEach(function (thumb) {
                thumb.hidden = Boolean(chosen.step) && thumb.dataset.step !== chosen.step;
                left += thumb.hidden ? 0 : 1;
            });
            block.hidden = !left || (Boolean(chosen.block) && block.dataset.block !== chosen.block);
        });
    }

    // Apply the filters again when the gallery is redrawn.
    new MutationObserver(function () {
        all(document, "select[data-filter]:not([data-done])").forEach(function (menu) {
            menu.dataset.done = "1";
            var value = chosen[menu.dataset.filter];
            if (Array.from(menu.options).some(function (option) { return option.value === value || option.text === value; })) {
                menu.value = value;
            } else {
                chosen[menu.dataset.filter] = "";
            }
            filter();
        });
    }).observe(document.documentElement, {childList: true, subtree: true});
})();
