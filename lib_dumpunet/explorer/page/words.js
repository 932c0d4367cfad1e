// The words: the heatmap of each, and the words at a point.

function valueAt(map, {x, y}) {
    const column = Math.min(map.width - 1, Math.floor(x * map.width));
    const row = Math.min(map.height - 1, Math.floor(y * map.height));
    return colorer.dequantise(map.levels[row * map.width + column], map.low, map.high);
}

/** The words that get most attention at a point, compared with their own mean. @param {Point} point */
function ranked(point) {
    const there = data.words.filter((word) => word.kind === "word" && word.maps.isLoaded);
    // Some words get more attention than others everywhere, so each is compared with its own mean.
    const all = there.map((word) => ({word, times: valueAt(word.maps.map(0, 0), point) / meanOf(word)}));
    return all.sort((a, b) => b.times - a.times).slice(0, RANKED);
}

function meanOf(word) {
    if (word.mean === undefined) {
        const map = word.maps.map(0, 0);
        const sum = map.levels.reduce((total, level) => total + colorer.dequantise(level, map.low, map.high), 0);
        word.mean = sum / map.levels.length;
    }
    return word.mean;
}

function wordName(word) {
    return word.branch === "uncond" ? word.name + " (negative)" : word.name;
}

function showRanking() {
    const list = element("ranking"), text = element("point-text");
    if (!state.point) {
        list.replaceChildren();
        text.textContent = "";
        return;
    }
    const order = ranked(state.point);
    const most = order.length ? order[0].times : 1;
    list.replaceChildren(...order.map(({word, times}) => {
        const bar = make("span", {className: "share"});
        bar.style.setProperty("--share", times / most);
        const text = make("span", {textContent: times.toFixed(1) + " \u00d7 its mean"});
        return make("li", {}, make("b", {textContent: wordName(word)}), bar, text);
    }));
    const place = data.size
        ? Math.floor(state.point.x * data.size[0]) + ", " + Math.floor(state.point.y * data.size[1])
        : "";
    const best = order.length ? "above all " + wordName(order[0].word) : "";
    text.textContent = [place && "At " + place, best].filter(Boolean).join(" \u2013 ");
}

function buildWords() {
    if (!data.words.length) {
        element("words-hint").textContent = "Words were not captured; to see them, choose words under attention.";
        return;
    }
    // Reserve space for the ranking, so that the words do not move away from under the pointer.
    const words = data.words.filter((word) => word.kind === "word").length;
    element("ranking").style.setProperty("--rows", String(Math.min(RANKED, words)));
    element("words-hint").textContent = "Point at a word to see where it lands, at the image to see which words are there.";
    const chips = data.words.map((word, index) => {
        const text = word.kind === "point" ? "from " + word.name.replace("x", ", ") : wordName(word);
        const chip = make("button", {type: "button", textContent: text});
        chip.dataset.word = index;
        const show = (value) => () => {
            state.word = value;
            soon(showImage);
        };
        chip.addEventListener("pointerenter", show(index));
        chip.addEventListener("pointerleave", show(null));
        chip.addEventListener("focus", show(index));
        chip.addEventListener("blur", show(null));
        chip.addEventListener("click", () => {
            state.pinned = state.pinned === index ? null : index;
            soon(showImage);
        });
        return chip;
    });
    element("word-list").append(...chips);
}
