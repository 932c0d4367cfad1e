// The single maps of a block, and an enlarged one.

let shown = []; // {figure, canvas, caption, index, isVisible}
const watcher = new IntersectionObserver((entries) => {
    entries.forEach((entry) => {
        /** @type {any} */ (entry.target).entry.isVisible = entry.isIntersecting;
    });
    soon(showChannels);
}, {rootMargin: "200px"});

function openBlock(name) {
    state.block = state.block === name ? null : name;
    buildDetail();
    showBlocks();
    if (state.block) {
        element("detail").scrollIntoView({behavior: "smooth", block: "nearest"});
        element("detail-title").focus({preventScroll: true});
    }
}

function closeBlock() {
    const name = state.block;
    state.block = null;
    buildDetail();
    showBlocks();
    if (name) tiles.get(name).button.focus();
}

function nameOf(maps, index) {
    const name = maps.names[index];
    if (maps.heads) return "head " + maps.heads[index];
    return state.mode === "self" ? "from " + name : "channel " + name;
}

function inOrder(maps) {
    let indices = maps.names.map((_, i) => i);
    if (maps.heads) indices = indices.filter((i) => maps.names[i] === state.token);
    if (field("order").value === "variance") indices.sort((a, b) => maps.variance[b] - maps.variance[a]);
    return indices;
}

function detailMaps() {
    const layer = state.block && layerOf(state.block);
    return layer ? layer.details || layer.summary : null;
}

function buildDetail() {
    const section = element("detail"), maps = detailMaps();
    section.hidden = !state.block;
    shown.forEach((one) => watcher.unobserve(one.figure));
    shown = [];
    if (!state.block) return;
    const block = blocks.get(state.block);
    element("detail-title").textContent = block.name + " \u2013 " + MODES[state.mode].label;
    element("detail-text").textContent = aboutBlock(block);
    element("detail-note").textContent = maps ? aboutMaps(maps) : "Nothing was captured here.";
    if (!maps) {
        element("channels").replaceChildren();
        return;
    }
    maps.load().then(() => soon(showChannels), failToRead);
    shown = inOrder(maps).map((index) => {
        const canvas = make("canvas", {width: 1, height: 1});
        canvas.setAttribute("aria-hidden", "true");
        const name = make("b", {textContent: nameOf(maps, index)}), range = make("span");
        const figure = make("button", {type: "button", className: "channel"}, canvas, name, range);
        const entry = {figure, canvas, range, index, isVisible: false};
        figure.entry = entry;
        figure.addEventListener("click", () => enlarge(maps, index));
        return entry;
    });
    element("channels").replaceChildren(...shown.map((one) => one.figure));
    shown.forEach((one) => watcher.observe(one.figure));
}

function aboutBlock(block) {
    const parts = [];
    if (block.kind) parts.push(block.kind);
    if (block.input) parts.push(shapeText(block.input) + " \u2192 " + shapeText(block.output));
    const heads = [...new Set(block.heads)];
    if (heads.length) {
        const count = block.heads.length;
        parts.push(`${count} attention layer${count > 1 ? "s" : ""} of ${heads.join("/")} heads`);
    }
    if (!block.attends) parts.push("no cross-attention");
    const read = reads(block, "cond");
    if (read >= 0) parts.push("reads \u201c" + textOf(read) + "\u201d");
    return parts.join(" \u00b7 ");
}

function aboutMaps(maps) {
    const parts = [], kept = maps.names.length;
    if (kept < maps.total) parts.push("the " + kept + " most varied of " + maps.total + " maps are in this page");
    if (maps.source[0] !== maps.height || maps.source[1] !== maps.width) {
        parts.push(`downscaled from ${maps.source[1]}\u00d7${maps.source[0]} to ${maps.width}\u00d7${maps.height}`);
    }
    return parts.length ? parts.join(", ") + "." : "";
}

function showChannels() {
    const maps = detailMaps();
    if (!maps || !maps.isLoaded || !shown.length) return;
    const place = maps.frameAt(state.frame, isSamePass);
    shown.forEach((one) => {
        if (!one.isVisible) return;
        const map = place < 0 ? null : maps.map(place, one.index);
        if (map && map.isThere) paint(one.canvas, map, tableOf(map, state.mode));
        else clear(one.canvas);
        one.range.textContent = map && map.isThere ? number(map.fullLow) + " \u2026 " + number(map.fullHigh) : "not here";
    });
}

let large = null; // {maps, index}

function enlarge(maps, index) {
    large = {maps, index};
    element("large-value").textContent = "";
    dialog("large").showModal();
    showLarge();
}

function showLarge() {
    if (!large || !dialog("large").open) return;
    const {maps, index} = large, place = maps.frameAt(state.frame, isSamePass);
    const map = place < 0 ? null : maps.map(place, index);
    element("large-title").textContent = `${state.block}, ${nameOf(maps, index)}, step ${label(state.frame)}`;
    if (!map || !map.isThere) {
        clear(element("large-map"));
        element("large-text").textContent = "There is no map at this step.";
        return;
    }
    paint(element("large-map"), map, tableOf(map, state.mode));
    large.map = map;
    element("large-text").textContent =
        `${map.width}\u00d7${map.height}, values from ${number(map.fullLow)} to ${number(map.fullHigh)}`;
}

function readValue(event) {
    if (!large || !large.map) return;
    const box = targetOf(event).getBoundingClientRect(), map = large.map;
    const x = Math.min(map.width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * map.width)));
    const y = Math.min(map.height - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * map.height)));
    const value = colorer.dequantise(map.levels[y * map.width + x], map.low, map.high);
    element("large-value").textContent = `column ${x}, row ${y}: ${number(value)}`;
}
