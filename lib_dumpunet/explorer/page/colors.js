// The colour controls.

const TEXTS = ["formula-0", "formula-1", "formula-2"], NUMBERS = ["clamp_min", "clamp_max", "gain", "offset"];

function fillMenu(id, choices) {
    element(id).append(...Object.entries(choices).map(([value, textContent]) => make("option", {value, textContent})));
}

// Set the controls to the mode's colours.
function fillColors() {
    const color = state.colors[state.mode];
    field("method").value = color.method;
    field("transform").value = color.transform;
    NUMBERS.forEach((name) => (field(name).value = color[name]));
    const defaults = data.menus.formulas[color.method];
    TEXTS.forEach((id, i) => {
        field(id).value = color.formula ? color.formula[i] : "";
        field(id).placeholder = defaults ? defaults[i] : "";
        element(id + "-name").textContent = color.method.toUpperCase()[i];
    });
    showForms();
}

function showForms() {
    const method = field("method").value, transform = field("transform").value;
    all("#colors .linear").forEach((part) => (part.hidden = transform !== "linear"));
    all("#colors .sigmoid").forEach((part) => (part.hidden = transform !== "sigmoid"));
    all("#colors .formula").forEach((part) => (part.hidden = !data.menus.formulas[method]));
}

// Read the colours from the controls; on a mistake, show a message and keep the maps' colours.
function readColors() {
    const method = field("method").value, defaults = data.menus.formulas[method];
    const typed = TEXTS.map((id) => field(id).value.trim());
    const color = /** @type {any} */ ({method, transform: field("transform").value, formula: null});
    NUMBERS.forEach((name) => (color[name] = Number(field(name).value)));
    if (defaults && typed.some(Boolean)) color.formula = typed.map((text, i) => text || defaults[i]);
    const place = element("color-error");
    try {
        check(color);
        painters[state.mode] = colorer.compile(color);
        state.colors[state.mode] = color;
        place.hidden = true;
        soon(showBlocks);
        soon(showChannels);
        soon(showLarge);
    } catch (error) {
        place.textContent = tell(error);
        place.hidden = false;
    }
}

function check(color) {
    if (NUMBERS.some((name) => !Number.isFinite(color[name]) || field(name).value === "")) {
        throw {field: "Colours", problem: "a number is missing", remedy: "Write one."};
    }
    if (color.transform === "linear" && color.clamp_min >= color.clamp_max) {
        throw {field: "Clamp min.", problem: `${color.clamp_min} is not below Clamp max. ${color.clamp_max}`, remedy: "Make it smaller."};
    }
    if (color.transform === "sigmoid" && color.gain <= 0) {
        throw {field: "gain", problem: `${color.gain} is not above 0`, remedy: "Make it larger."};
    }
}

function tell(error) {
    if (!error.problem) throw error;
    const sentence = `${error.field}: ${error.problem}. ${error.remedy || ""}`.trim();
    return error.text === undefined ? sentence : `${sentence}\n  ${error.text}\n  ${" ".repeat(error.position)}^`;
}

function buildColors() {
    fillMenu("method", data.menus.methods);
    fillMenu("transform", data.menus.transforms);
    element("method").addEventListener("change", () => {
        // Each method has its own formulas.
        TEXTS.forEach((id, i) => {
            const defaults = data.menus.formulas[field("method").value];
            field(id).value = "";
            field(id).placeholder = defaults ? defaults[i] : "";
            element(id + "-name").textContent = field("method").value.toUpperCase()[i];
        });
    });
    ["method", "transform"].forEach((id) => element(id).addEventListener("change", () => {
        showForms();
        readColors();
    }));
    [...TEXTS, ...NUMBERS].forEach((id) => element(id).addEventListener("input", readColors));
    element("reset").addEventListener("click", () => {
        state.colors[state.mode] = structuredClone(data.colors[state.mode]);
        fillColors();
        readColors();
    });
    Object.keys(state.colors).forEach(compile);
}
