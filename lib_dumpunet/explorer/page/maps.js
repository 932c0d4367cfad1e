// The map that each block shows.

function layerOf(name, mode = state.mode) {
    const hires = data.frames.length > 0 && data.frames[state.frame].hires;
    const layers = data.layers.filter(
        (layer) => layer.mode === mode && layer.block === name && layer.hires === hires
    );
    return layers[Math.min(state.site, layers.length - 1)];
}

function lattice() {
    const layer = data.layers.find((one) => one.mode === "self");
    const [row, column] = layer.summary.names[layer.summary.names.length - 1].split(",").map(Number);
    return {rows: row + 1, columns: column + 1};
}

// The query point of the grid nearest to the clicked point; the middle one if none was clicked.
function nearest() {
    const point = state.look || {x: 0.5, y: 0.5}, {rows, columns} = lattice();
    const row = Math.min(rows - 1, Math.floor(point.y * rows));
    const column = Math.min(columns - 1, Math.floor(point.x * columns));
    return {row, column, x: (column + 0.5) / columns, y: (row + 0.5) / rows};
}

function wanted(mode) {
    if (mode === "attention") return state.token;
    if (mode === "self") {
        const {row, column} = nearest();
        return row + "," + column;
    }
    return state.average;
}

// The map that a block shows now: null if it has none, undefined while it is being decompressed.
function mapOf(name, mode = state.mode, show = showBlocks) {
    const layer = layerOf(name, mode);
    if (!layer || !layer.summary) return null;
    const maps = layer.summary;
    if (!maps.isLoaded) {
        maps.load().then(() => soon(show), failToRead);
        return undefined;
    }
    const place = maps.frameAt(state.frame, isSamePass), which = maps.names.indexOf(wanted(mode));
    if (place < 0 || which < 0) return null;
    const map = maps.map(place, which);
    map.frame = maps.frames[place];
    return map.isThere ? map : null;
}
