// Steps, modes and keys.

function setFrame(frame) {
    if (!data.frames.length) return;
    state.frame = Math.min(data.frames.length - 1, Math.max(0, frame));
    field("step").value = String(state.frame);
    const text = `${label(state.frame)} of ${label(data.frames.length - 1)}`;
    field("step-text").value = text;
    element("step").setAttribute("aria-valuetext", "step " + text);
    soon(showBlocks);
    soon(showChannels);
    soon(showLarge);
    soon(showReads);
    if (state.look) soon(showImage);
}

let timer = null;

function play(isOn) {
    clearInterval(timer);
    timer = isOn ? setInterval(() => setFrame((state.frame + 1) % data.frames.length), SPEED) : null;
    element("play").textContent = isOn ? "Pause" : "Play";
    element("play").setAttribute("aria-pressed", String(isOn));
}

function setMode(mode) {
    state.mode = mode;
    element("average-box").hidden = !MODES[mode].isAveraged;
    element("tokens").hidden = mode !== "attention";
    element("self-hint").hidden = mode !== "self";
    const sites = 1 + Math.max(0, ...data.layers.filter((layer) => layer.mode === mode).map((layer) => layer.site));
    element("layer-box").hidden = sites < 2;
    element("site").replaceChildren(...Array.from({length: sites}, (_, i) =>
        make("option", {value: i, textContent: i + 1})));
    state.site = Math.min(state.site, sites - 1);
    field("site").value = String(state.site);
    fillColors();
    buildDetail();
    showBlocks();
    showImage();
}

function radio(group, value, text, isChecked, choose) {
    const input = make("input", {type: "radio", name: group, value, checked: isChecked});
    input.addEventListener("change", () => choose(value));
    return make("label", {}, input, text);
}

function buildModes() {
    modes.forEach((mode) => element("modes").append(radio("mode", mode, MODES[mode].label, mode === state.mode, setMode)));
    element("modes").hidden = modes.length < 2;
    const tokens = new Set();
    data.layers.filter((layer) => layer.mode === "attention")
        .forEach((layer) => layer.summary.names.forEach((name) => tokens.add(name)));
    const names = [...tokens];
    // Start with a content word, if there is one.
    const isWord = (name) => data.words.some((word) => word.kind === "word" && word.name === name);
    state.token = names.find(isWord) || names.find((name) => !name.startsWith("<")) || names[0] || null;
    names.forEach((name) => element("tokens").append(radio("token", name, name, name === state.token, (token) => {
        state.token = token;
        buildDetail();
        showBlocks();
    })));
}

function buildControls() {
    const step = field("step");
    step.max = String(Math.max(0, data.frames.length - 1));
    step.addEventListener("input", () => setFrame(Number(step.value)));
    element("steps").hidden = data.frames.length < 2;
    element("play").addEventListener("click", () => play(timer === null));
    field("average").value = state.average;
    element("average").addEventListener("change", () => {
        state.average = field("average").value;
        showBlocks();
    });
    element("site").addEventListener("change", () => {
        state.site = Number(field("site").value);
        buildDetail();
        showBlocks();
    });
    element("order").addEventListener("change", buildDetail);
    element("zoom").addEventListener("input", () => {
        element("channels").style.setProperty("--map", field("zoom").value + "px");
    });
    element("detail-close").addEventListener("click", closeBlock);
    element("large-close").addEventListener("click", () => dialog("large").close());
    element("large-map").addEventListener("pointermove", readValue);
    addEventListener("keydown", (event) => {
        const own = targetOf(event).closest("input, select, textarea, #stage");
        if (event.altKey || event.ctrlKey || event.metaKey || own) return;
        const steps = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key];
        if (steps !== undefined) {
            event.preventDefault();
            setFrame(state.frame + steps);
        } else if (event.key === " " && !targetOf(event).closest("button, summary, a")) {
            event.preventDefault();
            play(timer === null);
        } else if (event.key === "Escape" && state.block && !dialog("large").open) {
            closeBlock();
        } else if (event.key === "Escape" && state.look) {
            lookFrom(null);
        }
    });
}
