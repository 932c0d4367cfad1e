// Paint maps on canvases.

const painters = {};

function isAbsolute(mode) {
    return MODES[mode].isSigned && state.colors[mode].method === "white-black";
}

function compile(mode) {
    painters[mode] = colorer.compile(state.colors[mode]);
}

function tableOf(map, mode) {
    return painters[mode].table(map.low, map.high, isAbsolute(mode), map.levels);
}

const images = new WeakMap();

function paint(canvas, map, table) {
    let image = images.get(canvas);
    if (!image || canvas.width !== map.width || canvas.height !== map.height) {
        canvas.width = map.width;
        canvas.height = map.height;
        image = canvas.getContext("2d").createImageData(map.width, map.height);
        image.pixels = new Uint32Array(image.data.buffer);
        images.set(canvas, image);
    }
    const pixels = image.pixels, levels = map.levels;
    for (let i = 0; i < levels.length; i++) pixels[i] = table[levels[i]];
    canvas.getContext("2d").putImageData(image, 0, 0);
}

function clear(canvas) {
    images.delete(canvas);
    canvas.width = canvas.height = 1;
}
