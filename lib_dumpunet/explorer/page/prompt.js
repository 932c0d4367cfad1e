// The prompt, what blocks read from it, and the generation parameters.

function buildPrompt() {
    data.prompt.filter(({parts}) => parts.some(([text]) => text.trim())).forEach(({branch, parts}) => {
        const line = make("p", {className: "prompt"});
        if (branch === "uncond") line.append(make("b", {textContent: "Negative: "}));
        parts.forEach(([text, isBracket]) => line.append(isBracket ? make("mark", {textContent: text}) : text));
        element("prompt").append(line);
    });
    const list = element("parameters");
    Object.entries(data.parameters).forEach(([name, value]) => {
        if (name === "Prompt" || name === "Negative prompt") {
            if (data.prompt.length) return;
        }
        list.append(make("dt", {textContent: name}), make("dd", {textContent: value}));
    });
    element("heading").textContent = (data.parameters.Prompt || "Explorer").trim() || "Explorer";
    const of = data.frames.length === 1 ? "1 step" : data.frames.length + " steps";
    const blocksHere = new Set(data.layers.map((layer) => layer.block)).size;
    element("facts").textContent = [
        "seed " + data.parameters.Seed, data.parameters.Sampler, data.parameters.Model, blocksHere + " blocks, " + of,
    ].filter((part) => part && !/undefined/.test(part)).join(" \u00b7 ");
    element("about").textContent =
        "Each map has 256 levels between its minimum and its maximum, so a value read here is off by at most 1/510 of " +
        "that range. Colours are exactly those of Dump U-Net's pictures.";
    element("steered-legend").hidden = !data.blocks.some((block) => block.steered.length);
}

function showReads() {
    const place = element("reads");
    if (!data.blocks.some((block) => block.steered.length) || !data.frames.length) return;
    const rows = [];
    ["cond", "uncond"].forEach((branch) => {
        const groups = new Map();
        data.blocks.forEach((block) => {
            const read = reads(block, branch);
            if (read >= 0) groups.set(read, [...(groups.get(read) || []), block.name]);
        });
        if (branch === "uncond" && groups.size < 2) return;
        groups.forEach((names, read) => {
            const row = make("tr", {}, make("th", {scope: "row", textContent: spans(names)}),
                make("td", {textContent: (branch === "uncond" ? "negative: " : "") + textOf(read)}));
            row.dataset.text = read % TEXT_COLORS;
            rows.push(row);
        });
    });
    const caption = make("caption", {textContent: "What blocks read at step " + label(state.frame)});
    place.replaceChildren(make("table", {}, caption, make("tbody", {}, ...rows)));
}
