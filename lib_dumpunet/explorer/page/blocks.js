// The blocks as a U.

const tiles = new Map();

function shapeText(shape) {
    return shape ? shape.join("\u00d7") : "";
}

function buildTile(block) {
    const canvas = make("canvas", {width: 1, height: 1});
    canvas.setAttribute("aria-hidden", "true");
    const text = make("span", {className: "reads"});
    const shape = make("span", {className: "shape", textContent: shapeText(block.output)});
    const kind = make("span", {className: "kind", textContent: block.kind});
    const button = make("button", {type: "button", className: "tile"},
        canvas, make("b", {textContent: block.name}), kind, shape, text);
    button.dataset.block = block.name;
    button.classList.toggle("blind", !block.attends);
    button.addEventListener("click", () => openBlock(block.name));
    tiles.set(block.name, {button, canvas, text});
    return button;
}

function buildBlocks() {
    const place = element("unet");
    const deepest = Math.max(...data.blocks.map((block) => block.level));
    for (let level = 0; level <= deepest; level++) {
        const here = data.blocks.filter((block) => block.level === level);
        const sides = ["IN", "M", "OUT"].map((family) => {
            const side = make("div", {className: "side-" + family.toLowerCase()});
            side.append(...here.filter((block) => block.name.startsWith(family)).map(buildTile));
            return side;
        });
        const row = make("div", {className: "level"});
        row.style.setProperty("--level", level);
        const ends = sides.filter((side) => side.childElementCount);
        if (ends.length > 1) ends.splice(1, 0, make("span", {className: "skip-line"}));
        row.append(...ends);
        row.classList.toggle("bottom", sides[1].childElementCount > 0);
        place.append(row);
    }
}

function reads(block, branch) {
    const text = data.frames.length ? block.reads[branch][state.frame] : -1;
    return text === undefined ? -1 : text;
}

// The text of a steered block: of the negative prompt if only that differs from the main text.
function ownText(block) {
    const [branch] = block.steered;
    if (!branch || reads(block, branch) < 0) return "";
    return (branch === "uncond" ? "negative: " : "") + textOf(reads(block, branch));
}

function describe(block, map) {
    const parts = [block.name, block.kind];
    if (block.output) parts.push("output " + block.output.join(" by "));
    if (!block.attends) parts.push("no cross-attention");
    if (ownText(block)) parts.push("reads: " + ownText(block));
    if (map && map.frame !== state.frame) parts.push("shown at step " + label(map.frame));
    if (map) parts.push("values from " + number(map.fullLow) + " to " + number(map.fullHigh));
    else if (map === null) parts.push("no map here");
    return parts.filter(Boolean).join(", ");
}

function showBlocks() {
    data.blocks.forEach((block) => {
        const {button, canvas, text} = tiles.get(block.name), map = mapOf(block.name);
        if (map) paint(canvas, map, tableOf(map, state.mode));
        else if (map === null) clear(canvas);
        button.classList.toggle("empty", map === null);
        button.classList.toggle("open", state.block === block.name);
        button.title = describe(block, map);
        button.setAttribute("aria-label", button.title);
        if (block.steered.length) {
            text.textContent = ownText(block);
            button.dataset.text = reads(block, block.steered[0]) % TEXT_COLORS;
        }
        button.classList.toggle("steered", block.steered.length > 0);
    });
}
