// The page's state, and small helpers that all views use.

const data = globalThis.DumpUNetData, colorer = globalThis.DumpUNetColor;

/** An element, which the page always has. @param {string} id @returns {HTMLElement} */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** A form control. @param {string} id @returns {HTMLInputElement} */
const field = (id) => /** @type {HTMLInputElement} */ (element(id));
/** @param {string} id @returns {HTMLDialogElement} */
const dialog = (id) => /** @type {HTMLDialogElement} */ (element(id));
/** @param {string} selector @returns {NodeListOf<HTMLElement>} */
const all = (selector) => document.querySelectorAll(selector);
/** @param {Event} event @returns {HTMLElement} */
const targetOf = (event) => /** @type {HTMLElement} */ (event.target);

const MODES = Object.fromEntries(data.modes.map((mode) => [mode.name, mode]));
const SPEED = 125; // milliseconds per step while playing
const STEP = 0.02; // fraction of the image that an arrow key moves the point
const RANKED = 8;
const LOOK = "Click a point to see where it looks.";
const TEXT_COLORS = 8; // number of colours for texts, see page.css

const blocks = new Map(data.blocks.map((block) => [block.name, block]));
const isSamePass = (a, b) => data.frames[a].hires === data.frames[b].hires;
const has = (mode) => data.layers.some((layer) => layer.mode === mode);
const modes = Object.keys(MODES).filter(has);

/** @typedef {{x: number, y: number}} Point in fractions of the image */
/**
 * @type {{mode: string, frame: number, average: string, token: number | null, site: number, block: string | null,
 *     word: number | null, pinned: number | null, point: Point | null, look: Point | null, colors: Object<string, any>}}
 */
const state = {
    mode: modes[0] || "feature",
    frame: Math.max(0, data.frames.length - 1),
    average: data.average,
    token: null,
    site: 0,
    block: null, // whose single maps are shown
    word: null, // index into data.words, shown over the image
    pinned: null, // the word that stays when the pointer leaves
    point: null, // under the pointer
    look: null, // the clicked point, for self-attention
    colors: structuredClone(data.colors),
};

/** @param {string} name @param {Object<string, any>} properties @param {...(string | Node)} children @returns {any} */
function make(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
}

function number(value) {
    if (Number.isNaN(value)) return "NaN";
    if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
}

function label(frame) {
    const {step, hires} = data.frames[frame];
    return (hires ? "hr" : "") + step;
}

// Abbreviate consecutive blocks as ranges: IN00-IN03, M00.
function spans(names) {
    const order = data.blocks.map((block) => block.name);
    const parts = [];
    names.forEach((name) => {
        const last = parts[parts.length - 1], family = name.replace(/\d+/, "");
        const follows = last && order[order.indexOf(last[1]) + 1] === name && last[1].startsWith(family);
        if (follows) last[1] = name;
        else parts.push([name, name]);
    });
    return parts.map(([a, b]) => (a === b ? a : a + "-" + b)).join(", ");
}

// Removing a bracket leaves double spaces.
function textOf(index) {
    return index < 0 ? "" : data.texts[index].trim().replace(/\s+/g, " ");
}

const waiting = new Set();
function soon(work) {
    if (!waiting.size) {
        requestAnimationFrame(() => {
            const all = [...waiting];
            waiting.clear();
            all.forEach((one) => one());
        });
    }
    waiting.add(work);
}

function failToRead(error) {
    const place = element("failure");
    place.textContent = "The maps could not be read: " + error.message;
    place.hidden = false;
}
