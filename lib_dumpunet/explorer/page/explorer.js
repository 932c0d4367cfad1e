// What can be done on the page. One state, and functions that bring what is seen in line with it.

(function () {
    "use strict";

    const data = globalThis.DumpUNetData, colorer = globalThis.DumpUNetColor;
    const find = (id) => document.getElementById(id);
    const MODES = Object.fromEntries(data.modes.map((mode) => [mode.name, mode]));
    const SPEED = 125; // milliseconds of a step while playing
    const STEP = 0.02; // of the image, that an arrow key moves the point
    const RANKED = 8;
    const LOOK = "Click a point to see where it looks.";
    const TEXT_COLORS = 8; // of texts that blocks read, see the style

    const blocks = new Map(data.blocks.map((block) => [block.name, block]));
    const isSamePass = (a, b) => data.frames[a].hires === data.frames[b].hires;
    const has = (mode) => data.layers.some((layer) => layer.mode === mode);
    const modes = Object.keys(MODES).filter(has);

    const state = {
        mode: modes[0] || "feature",
        frame: Math.max(0, data.frames.length - 1),
        average: data.average,
        token: null,
        site: 0,
        block: null, // whose single maps are shown
        word: null, // of data.words, laid over the image
        pinned: null, // the word that stays when the pointer leaves
        point: null, // under the pointer, {x, y} in fractions of the image
        look: null, // that was clicked, to see where it looks
        colors: structuredClone(data.colors),
    };

    // --- small things ---

    function make(name, properties, ...children) {
        const element = Object.assign(document.createElement(name), properties);
        element.append(...children);
        return element;
    }

    function number(value) {
        if (Number.isNaN(value)) return "no number";
        if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(2);
        return String(Number(value.toPrecision(4)));
    }

    function label(frame) {
        const {step, hires} = data.frames[frame];
        return (hires ? "hr" : "") + step;
    }

    // Blocks that follow each other as a range: IN00-IN03, M00.
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

    // What a bracket leaves has its blanks twice.
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

    function fail(error) {
        const place = find("failure");
        place.textContent = "The maps could not be read: " + error.message;
        place.hidden = false;
    }

    // --- colours ---

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

    // --- what a block shows ---

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

    // The place in the lattice that is nearest to the point that was clicked; the middle if none was.
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

    // The map that a block shows now: null where it has none, undefined where it is being unpacked.
    function mapOf(name, mode = state.mode, show = showBlocks) {
        const layer = layerOf(name, mode);
        if (!layer || !layer.summary) return null;
        const maps = layer.summary;
        if (!maps.isLoaded) {
            maps.load().then(() => soon(show), fail);
            return undefined;
        }
        const place = maps.frameAt(state.frame, isSamePass), which = maps.names.indexOf(wanted(mode));
        if (place < 0 || which < 0) return null;
        const map = maps.map(place, which);
        map.frame = maps.frames[place];
        return map.isThere ? map : null;
    }

    // --- the U ---

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
        button.addEventListener("click", () => open(block.name));
        tiles.set(block.name, {button, canvas, text});
        return button;
    }

    function buildBlocks() {
        const place = find("unet");
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

    // What a steered block reads, of the negative prompt where only that is its own.
    function ownText(block) {
        const [branch] = block.steered;
        if (!branch || reads(block, branch) < 0) return "";
        return (branch === "uncond" ? "negative: " : "") + textOf(reads(block, branch));
    }

    function describe(block, map) {
        const parts = [block.name, block.kind];
        if (block.output) parts.push("puts out " + block.output.join(" by "));
        if (!block.attends) parts.push("no cross-attention");
        if (ownText(block)) parts.push("reads: " + ownText(block));
        if (map && map.frame !== state.frame) parts.push("shown as of step " + label(map.frame));
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

    // --- single maps of a block ---

    let shown = []; // {figure, canvas, caption, index, isVisible}
    const watcher = new IntersectionObserver((entries) => {
        entries.forEach((entry) => {
            entry.target.entry.isVisible = entry.isIntersecting;
        });
        soon(showChannels);
    }, {rootMargin: "200px"});

    function open(name) {
        state.block = state.block === name ? null : name;
        buildDetail();
        showBlocks();
        if (state.block) {
            find("detail").scrollIntoView({behavior: "smooth", block: "nearest"});
            find("detail-title").focus({preventScroll: true});
        }
    }

    function close() {
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

    function order(maps) {
        let indices = maps.names.map((_, i) => i);
        if (maps.heads) indices = indices.filter((i) => maps.names[i] === state.token);
        if (find("order").value === "variance") indices.sort((a, b) => maps.variance[b] - maps.variance[a]);
        return indices;
    }

    function detailMaps() {
        const layer = state.block && layerOf(state.block);
        return layer ? layer.details || layer.summary : null;
    }

    function buildDetail() {
        const section = find("detail"), maps = detailMaps();
        section.hidden = !state.block;
        shown.forEach((one) => watcher.unobserve(one.figure));
        shown = [];
        if (!state.block) return;
        const block = blocks.get(state.block);
        find("detail-title").textContent = block.name + " \u2013 " + MODES[state.mode].label;
        find("detail-text").textContent = aboutBlock(block);
        find("detail-note").textContent = maps ? aboutMaps(maps) : "Nothing was captured here.";
        if (!maps) {
            find("channels").replaceChildren();
            return;
        }
        maps.load().then(() => soon(showChannels), fail);
        shown = order(maps).map((index) => {
            const canvas = make("canvas", {width: 1, height: 1});
            canvas.setAttribute("aria-hidden", "true");
            const name = make("b", {textContent: nameOf(maps, index)}), range = make("span");
            const figure = make("button", {type: "button", className: "channel"}, canvas, name, range);
            const entry = {figure, canvas, range, index, isVisible: false};
            figure.entry = entry;
            figure.addEventListener("click", () => enlarge(maps, index));
            return entry;
        });
        find("channels").replaceChildren(...shown.map((one) => one.figure));
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
        if (kept < maps.total) parts.push(kept + " of " + maps.total + " maps are in this page, those that vary most");
        if (maps.source[0] !== maps.height || maps.source[1] !== maps.width) {
            parts.push(`at ${maps.width}\u00d7${maps.height} places of ${maps.source[1]}\u00d7${maps.source[0]}`);
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
        find("large-value").textContent = "";
        find("large").showModal();
        showLarge();
    }

    function showLarge() {
        if (!large || !find("large").open) return;
        const {maps, index} = large, place = maps.frameAt(state.frame, isSamePass);
        const map = place < 0 ? null : maps.map(place, index);
        find("large-title").textContent = `${state.block}, ${nameOf(maps, index)}, step ${label(state.frame)}`;
        if (!map || !map.isThere) {
            clear(find("large-map"));
            find("large-text").textContent = "It is not here in this step.";
            return;
        }
        paint(find("large-map"), map, tableOf(map, state.mode));
        large.map = map;
        find("large-text").textContent =
            `${map.width}\u00d7${map.height} places, values from ${number(map.fullLow)} to ${number(map.fullHigh)}`;
    }

    function readValue(event) {
        if (!large || !large.map) return;
        const box = event.target.getBoundingClientRect(), map = large.map;
        const x = Math.min(map.width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * map.width)));
        const y = Math.min(map.height - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * map.height)));
        const value = colorer.dequantise(map.levels[y * map.width + x], map.low, map.high);
        find("large-value").textContent = `column ${x}, row ${y}: ${number(value)}`;
    }

    // --- the image, its words, and where its points look ---

    function overlayMap() {
        const word = state.word === null ? state.pinned : state.word;
        if (word !== null) {
            const maps = data.words[word].maps;
            if (maps.isLoaded) return maps.map(0, 0);
            maps.load().then(() => soon(showImage), fail);
            return null;
        }
        return (state.look && mapOf(looking(), "self", showImage)) || null;
    }

    // The block whose self-attention is laid over the image: the one that is open, or the sharpest.
    function looking() {
        return state.block && layerOf(state.block, "self") ? state.block : sharpest();
    }

    // The last of the blocks whose self-attention is the finest.
    function sharpest() {
        let best = null;
        data.layers.filter((layer) => layer.mode === "self").forEach((layer) => {
            if (!best || layer.summary.source[0] >= best.summary.source[0]) best = layer;
        });
        return best && best.block;
    }

    function showImage() {
        const map = overlayMap(), canvas = find("heat");
        canvas.hidden = !map;
        if (map) {
            const table = new Uint32Array(256), bytes = new Uint8Array(table.buffer);
            for (let i = 0; i < 256; i++) bytes.set([...data.palette[i], Math.round(0.85 * i)], 4 * i);
            const even = map.high > map.low ? map : {...map, levels: new Uint8Array(map.levels.length)};
            paint(canvas, even, table);
        }
        find("stage").classList.toggle("dimmed", Boolean(map));
        const ring = find("ring"), point = state.look ? nearest() : state.point;
        ring.hidden = !point;
        if (point) {
            ring.style.left = 100 * point.x + "%";
            ring.style.top = 100 * point.y + "%";
        }
        document.querySelectorAll("#word-list button").forEach((button) => {
            const index = Number(button.dataset.word);
            button.setAttribute("aria-pressed", String(state.pinned === index));
            button.classList.toggle("lit", (state.word === null ? state.pinned : state.word) === index);
        });
        showRanking();
    }

    function valueAt(map, {x, y}) {
        const column = Math.min(map.width - 1, Math.floor(x * map.width));
        const row = Math.min(map.height - 1, Math.floor(y * map.height));
        return colorer.dequantise(map.levels[row * map.width + column], map.low, map.high);
    }

    function ranked() {
        const there = data.words.filter((word) => word.kind === "word" && word.maps.isLoaded);
        // Some words get more than others everywhere, so each is measured by its own mean.
        const all = there.map((word) => ({word, times: valueAt(word.maps.map(0, 0), state.point) / meanOf(word)}));
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
        const list = find("ranking"), text = find("point-text");
        if (!state.point) {
            list.replaceChildren();
            text.textContent = "";
            return;
        }
        const order = ranked();
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

    // Choose a point to see where it looks; a second time at the same place ends that.
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
        const from = state.look && `Laid over it: where it looks in ${looking()}`;
        find("look-text").textContent = from || (has("self") ? LOOK : "");
    }

    function movePoint(x, y) {
        const inside = (value) => Math.min(0.9999, Math.max(0, value));
        state.point = {x: inside(x), y: inside(y)};
        data.words.forEach((word) => word.maps.isLoaded || word.maps.load().then(() => soon(showImage), fail));
        soon(showImage);
    }

    function buildImage() {
        const stage = find("stage");
        if (data.picture) {
            find("picture").src = data.picture;
            find("picture").alt = "The image";
        } else {
            stage.classList.add("none");
            stage.append(make("p", {textContent: "The image did not come out."}));
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

    function buildWords() {
        if (!data.words.length) {
            find("words-hint").textContent = "Words were not captured; they need attention with the choice words.";
            return;
        }
        // Room for the ranking is kept, or the words would move away below the pointer that comes from the image.
        const words = data.words.filter((word) => word.kind === "word").length;
        find("ranking").style.setProperty("--rows", Math.min(RANKED, words));
        find("words-hint").textContent = "Point at a word to see where it lands, at the image to see which words are there.";
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
        find("word-list").append(...chips);
    }

    // --- prompts ---

    function buildPrompt() {
        data.prompt.filter(({parts}) => parts.some(([text]) => text.trim())).forEach(({branch, parts}) => {
            const line = make("p", {className: "prompt"});
            if (branch === "uncond") line.append(make("b", {textContent: "Negative: "}));
            parts.forEach(([text, isBracket]) => line.append(isBracket ? make("mark", {textContent: text}) : text));
            find("prompt").append(line);
        });
        const list = find("parameters");
        Object.entries(data.parameters).forEach(([name, value]) => {
            if (name === "Prompt" || name === "Negative prompt") {
                if (data.prompt.length) return;
            }
            list.append(make("dt", {textContent: name}), make("dd", {textContent: value}));
        });
        find("heading").textContent = (data.parameters.Prompt || "Explorer").trim() || "Explorer";
        const of = data.frames.length === 1 ? "1 step" : data.frames.length + " steps";
        const blocksHere = new Set(data.layers.map((layer) => layer.block)).size;
        find("facts").textContent = [
            "seed " + data.parameters.Seed, data.parameters.Sampler, data.parameters.Model, blocksHere + " blocks, " + of,
        ].filter((part) => part && !/undefined/.test(part)).join(" \u00b7 ");
        find("about").textContent =
            "Each map has 256 levels between its lowest and its highest number, so that a number read here is off by at most " +
            "1/510 of that range. Colours are those of Dump U-Net, by the same formulas.";
        find("steered-legend").hidden = !data.blocks.some((block) => block.steered.length);
    }

    function showReads() {
        const place = find("reads");
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

    // --- controls ---

    function setFrame(frame) {
        if (!data.frames.length) return;
        state.frame = Math.min(data.frames.length - 1, Math.max(0, frame));
        find("step").value = state.frame;
        const text = `${label(state.frame)} of ${label(data.frames.length - 1)}`;
        find("step-text").value = text;
        find("step").setAttribute("aria-valuetext", "step " + text);
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
        find("play").textContent = isOn ? "Pause" : "Play";
        find("play").setAttribute("aria-pressed", String(isOn));
    }

    function setMode(mode) {
        state.mode = mode;
        find("average-box").hidden = !MODES[mode].isAveraged;
        find("tokens").hidden = mode !== "attention";
        find("self-hint").hidden = mode !== "self";
        const sites = 1 + Math.max(0, ...data.layers.filter((layer) => layer.mode === mode).map((layer) => layer.site));
        find("layer-box").hidden = sites < 2;
        find("site").replaceChildren(...Array.from({length: sites}, (_, i) =>
            make("option", {value: i, textContent: i + 1})));
        state.site = Math.min(state.site, sites - 1);
        find("site").value = state.site;
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
        modes.forEach((mode) => find("modes").append(radio("mode", mode, MODES[mode].label, mode === state.mode, setMode)));
        find("modes").hidden = modes.length < 2;
        const tokens = new Set();
        data.layers.filter((layer) => layer.mode === "attention")
            .forEach((layer) => layer.summary.names.forEach((name) => tokens.add(name)));
        const names = [...tokens];
        // A word that shows something by itself, if there is one.
        const isWord = (name) => data.words.some((word) => word.kind === "word" && word.name === name);
        state.token = names.find(isWord) || names.find((name) => !name.startsWith("<")) || names[0] || null;
        names.forEach((name) => find("tokens").append(radio("token", name, name, name === state.token, (token) => {
            state.token = token;
            buildDetail();
            showBlocks();
        })));
    }

    const TEXTS = ["formula-0", "formula-1", "formula-2"], NUMBERS = ["clamp_min", "clamp_max", "gain", "offset"];

    function fillMenu(id, choices) {
        find(id).append(...Object.entries(choices).map(([value, textContent]) => make("option", {value, textContent})));
    }

    // Bring the controls in line with the colours of the mode.
    function fillColors() {
        const color = state.colors[state.mode];
        find("method").value = color.method;
        find("transform").value = color.transform;
        NUMBERS.forEach((name) => (find(name).value = color[name]));
        const defaults = data.menus.formulas[color.method];
        TEXTS.forEach((id, i) => {
            find(id).value = color.formula ? color.formula[i] : "";
            find(id).placeholder = defaults ? defaults[i] : "";
            find(id + "-name").textContent = color.method.toUpperCase()[i];
        });
        showForms();
    }

    function showForms() {
        const method = find("method").value, transform = find("transform").value;
        document.querySelectorAll("#colors .linear").forEach((part) => (part.hidden = transform !== "linear"));
        document.querySelectorAll("#colors .sigmoid").forEach((part) => (part.hidden = transform !== "sigmoid"));
        document.querySelectorAll("#colors .formula").forEach((part) => (part.hidden = !data.menus.formulas[method]));
    }

    // Read the colours off the controls; what is wrong is told, and the maps stay as they are.
    function readColors() {
        const method = find("method").value, defaults = data.menus.formulas[method];
        const typed = TEXTS.map((id) => find(id).value.trim());
        const color = {method, transform: find("transform").value, formula: null};
        NUMBERS.forEach((name) => (color[name] = Number(find(name).value)));
        if (defaults && typed.some(Boolean)) color.formula = typed.map((text, i) => text || defaults[i]);
        const place = find("color-error");
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
        if (NUMBERS.some((name) => !Number.isFinite(color[name]) || find(name).value === "")) {
            throw {field: "Colours", problem: "there is no number", remedy: "Write one."};
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
        find("method").addEventListener("change", () => {
            // Formulas are those of a method.
            TEXTS.forEach((id, i) => {
                const defaults = data.menus.formulas[find("method").value];
                find(id).value = "";
                find(id).placeholder = defaults ? defaults[i] : "";
                find(id + "-name").textContent = find("method").value.toUpperCase()[i];
            });
        });
        ["method", "transform"].forEach((id) => find(id).addEventListener("change", () => {
            showForms();
            readColors();
        }));
        [...TEXTS, ...NUMBERS].forEach((id) => find(id).addEventListener("input", readColors));
        find("reset").addEventListener("click", () => {
            state.colors[state.mode] = structuredClone(data.colors[state.mode]);
            fillColors();
            readColors();
        });
        Object.keys(state.colors).forEach(compile);
    }

    function buildControls() {
        const step = find("step");
        step.max = Math.max(0, data.frames.length - 1);
        step.addEventListener("input", () => setFrame(Number(step.value)));
        find("steps").hidden = data.frames.length < 2;
        find("play").addEventListener("click", () => play(timer === null));
        find("average").value = state.average;
        find("average").addEventListener("change", () => {
            state.average = find("average").value;
            showBlocks();
        });
        find("site").addEventListener("change", () => {
            state.site = Number(find("site").value);
            buildDetail();
            showBlocks();
        });
        find("order").addEventListener("change", buildDetail);
        find("zoom").addEventListener("input", () => {
            find("channels").style.setProperty("--map", find("zoom").value + "px");
        });
        find("detail-close").addEventListener("click", close);
        find("large-close").addEventListener("click", () => find("large").close());
        find("large-map").addEventListener("pointermove", readValue);
        addEventListener("keydown", (event) => {
            const own = event.target.closest("input, select, textarea, #stage");
            if (event.altKey || event.ctrlKey || event.metaKey || own) return;
            const steps = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key];
            if (steps !== undefined) {
                event.preventDefault();
                setFrame(state.frame + steps);
            } else if (event.key === " " && !event.target.closest("button, summary, a")) {
                event.preventDefault();
                play(timer === null);
            } else if (event.key === "Escape" && state.block && !find("large").open) {
                close();
            } else if (event.key === "Escape" && state.look) {
                lookFrom(null);
            }
        });
    }

    buildPrompt();
    buildImage();
    lookFrom(null);
    buildWords();
    buildBlocks();
    buildModes();
    buildColors();
    buildControls();
    setMode(state.mode);
    setFrame(state.frame);
})();
