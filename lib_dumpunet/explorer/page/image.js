// The image, the heatmap over it, and the point for self-attention.

function overlayMap() {
    const word = state.word === null ? state.pinned : state.word;
    if (word !== null) {
        const maps = data.words[word].maps;
        if (maps.isLoaded) return maps.map(0, 0);
        maps.load().then(() => soon(showImage), failToRead);
        return null;
    }
    return (state.look && mapOf(looking(), "self", showImage)) || null;
}

// The block whose self-attention is shown over the image: the open one, or the one of highest resolution.
function looking() {
    return state.block && layerOf(state.block, "self") ? state.block : sharpest();
}

// The last block whose self-attention has the highest resolution.
function sharpest() {
    let best = /** @type {any} */ (null);
    data.layers.filter((layer) => layer.mode === "self").forEach((layer) => {
        if (!best || layer.summary.source[0] >= best.summary.source[0]) best = layer;
    });
    return best && best.block;
}

function showImage() {
    const map = overlayMap(), canvas = element("heat");
    canvas.hidden = !map;
    if (map) {
        const table = new Uint32Array(256), bytes = new Uint8Array(table.buffer);
        for (let i = 0; i < 256; i++) bytes.set([...data.palette[i], Math.round(0.85 * i)], 4 * i);
        const even = map.high > map.low ? map : {...map, levels: new Uint8Array(map.levels.length)};
        paint(canvas, even, table);
    }
    element("stage").classList.toggle("dimmed", Boolean(map));
    const ring = element("ring"), point = state.look ? nearest() : state.point;
    ring.hidden = !point;
    if (point) {
        ring.style.left = 100 * point.x + "%";
        ring.style.top = 100 * point.y + "%";
    }
    all("#word-list button").forEach((button) => {
        const index = Number(button.dataset.word);
        button.setAttribute("aria-pressed", String(state.pinned === index));
        button.classList.toggle("lit", (state.word === null ? state.pinned : state.word) === index);
    });
    showRanking();
}

// Choose the point for self-attention; choosing it again clears it.
function lookFrom(point) {
    if (!has("self")) return;
    const before = state.look && nearest();
    state.look = point;
    if (point && before && nearest().row === before.row && nearest().column === before.column) state.look = null;
    soon(showImage);
    if (state.mode === "self") {
        soon(showBlocks);
        soon(showChannels);
    }
    const from = state.look && `Overlay: self-attention of this point in ${looking()}`;
    element("look-text").textContent = from || (has("self") ? LOOK : "");
}

function movePoint(x, y) {
    const inside = (value) => Math.min(0.9999, Math.max(0, value));
    state.point = {x: inside(x), y: inside(y)};
    data.words.forEach((word) => word.maps.isLoaded || word.maps.load().then(() => soon(showImage), failToRead));
    soon(showImage);
}

function buildImage() {
    const stage = element("stage");
    if (data.picture) {
        const picture = /** @type {HTMLImageElement} */ (element("picture"));
        picture.src = data.picture;
        picture.alt = "The image";
    } else {
        stage.classList.add("none");
        stage.append(make("p", {textContent: data.noPicture}));
        const frame = data.parameters.Size ? data.parameters.Size.replace("x", " / ") : "1";
        stage.style.aspectRatio = frame;
    }
    const at = (event) => {
        const box = stage.getBoundingClientRect();
        movePoint((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    };
    stage.addEventListener("pointermove", at);
    stage.addEventListener("pointerdown", at);
    stage.addEventListener("click", () => lookFrom(state.point));
    stage.addEventListener("pointerleave", (event) => {
        if (event.pointerType !== "mouse") return;
        state.point = null;
        soon(showImage);
    });
    stage.addEventListener("keydown", (event) => {
        const ways = {ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP]};
        const way = ways[event.key];
        if (event.key === "Enter" && state.point) lookFrom(state.point);
        if (!way) return;
        event.preventDefault();
        event.stopPropagation();
        const from = state.point || {x: 0.5, y: 0.5};
        movePoint(from.x + way[0], from.y + way[1]);
    });
}
