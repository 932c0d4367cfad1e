// Colour feature maps exactly as Python does: first the transform, then the method. All numbers are float32, rounded
// after every operation, in the same order as in image/, so that pixels are equal.

globalThis.DumpUNetColor = (function () {
    "use strict";

    const {f, maximum, minimum, FUNCTIONS} = globalThis.DumpUNetNumbers;
    const {FormulaError} = globalThis.DumpUNetSyntax;
    const {compile: compileFormula} = globalThis.DumpUNetFormula;
    const {formulas: FORMULAS, channels: CHANNELS} = globalThis.DumpUNetGrammar;
    const TOP = 255;

    // --- transforms ---

    function transformOf(color) {
        const folded = color.method === "white-black";
        if (color.transform === "linear") return linear(color.clamp_min, color.clamp_max, folded);
        if (color.transform === "sigmoid") return sigmoid(f(color.gain), f(color.offset), folded);
        return auto(color.transform === "auto11");
    }

    // Each takes a map's minimum and maximum and returns a function of one value.
    function auto(isSigned) {
        return (low, high) => {
            const span = f(high - low);
            if (!(Number.isFinite(span) && span > 0)) return (v) => v;
            if (isSigned) return (v) => f(f(f(f(v - low) / span) * 2) - 1);
            return (v) => f(f(v - low) / span);
        };
    }

    function linear(low, high, folded) {
        const least = f(low), most = f(high);
        if (folded) {
            const sizes = [Math.abs(low), Math.abs(high)];
            [low, high] = [low * high < 0 ? 0 : Math.min(...sizes), Math.max(...sizes)];
        }
        const from = f(low), width = f(high - low);
        const clipped = (v) => minimum(maximum(v, least), most);
        if (folded) return () => (v) => f(f(Math.abs(clipped(v)) - from) / width);
        return () => (v) => f(f(f(f(clipped(v) - from) / width) * 2) - 1);
    }

    function sigmoid(gain, offset, folded) {
        const signed = (v) => f(f(f(1 / f(f(Math.exp(f(f(v + offset) * -gain))) + 1)) - 0.5) * 2);
        return folded ? () => (v) => Math.abs(signed(v)) : () => signed;
    }

    // --- methods ---

    const THIRD = f(1 / 3), SIXTH = f(1 / 6), TWO_THIRDS = f(2 / 3);

    function level(channel) {
        const scaled = f(channel * 256);
        return scaled >= TOP ? TOP : scaled > 0 ? Math.trunc(scaled) : 0;
    }

    function pixel(red, green, blue) {
        return (0xff000000 | (level(blue) << 16) | (level(green) << 8) | level(red)) >>> 0;
    }

    // A rise over a sixth of a turn, a plateau, a fall over a sixth, and the floor.
    function channelOf(low, high, hue) {
        const turn = f(hue - Math.floor(hue)), width = f(high - low);
        if (turn < SIXTH) return f(low + f(f(width * turn) * 6));
        if (turn < 0.5) return high;
        if (turn >= TWO_THIRDS) return low;
        return f(low + f(f(width * f(TWO_THIRDS - turn)) * 6));
    }

    function hslPixel(h, s, l) {
        if (s === 0) return pixel(l, l, l);
        const high = l <= 0.5 ? f(l * f(1 + s)) : f(f(l + s) - f(l * s));
        const low = f(f(2 * l) - high);
        const channel = (hue) => channelOf(low, high, hue);
        return pixel(channel(f(h + THIRD)), channel(h), channel(f(h - THIRD)));
    }

    function methodOf(color) {
        if (color.method === "white-black") return (x) => pixel(x, x, x);
        if (color.method === "red-blue") return (x) => pixel(x, 0, -x);
        const texts = color.formula || FORMULAS[color.method], known = new Map();
        const [a, b, c] = texts.map((text, i) => {
            try {
                if (!known.has(text)) known.set(text, compileFormula(text));
                return known.get(text);
            } catch (caught) {
                const error = /** @type {any} */ (caught);
                error.field = `Color space, ${CHANNELS[color.method][i]}`;
                throw error;
            }
        });
        if (color.method === "hsl") return (x) => hslPixel(a(x), b(x), c(x));
        return (x) => pixel(a(x), b(x), c(x));
    }

    // --- tables ---

    const BLACK = 0xff000000;

    function dequantise(q, low, high) {
        return q === TOP ? high : f(low + f(q * f(f(high - low) / TOP)));
    }

    // Colours with given settings. `table` returns the pixel for each of the 256 levels of a map between `low` and
    // `high`, red in the lowest byte; with `absolute`, for absolute values, whose range depends on the `levels` that
    // occur.
    class Painter {
        constructor(color) {
            this._transform = transformOf(color);
            this._method = methodOf(color);
        }

        table(low, high, absolute = false, levels = null) {
            const table = new Uint32Array(TOP + 1);
            if (Number.isNaN(low) || Number.isNaN(high)) return table.fill(BLACK);
            const size = absolute ? Math.abs : (v) => v;
            const [least, most] = absolute ? sizes(low, high, levels) : [low, high];
            const transform = this._transform(least, most), method = this._method;
            for (let q = 0; q <= TOP; q++) {
                const x = transform(size(dequantise(q, low, high)));
                table[q] = Number.isNaN(x) ? BLACK : method(x);
            }
            return table;
        }
    }

    // The range of the absolute values that occur.
    function sizes(low, high, levels) {
        const occurs = new Uint8Array(TOP + 1);
        for (let i = 0; i < levels.length; i++) occurs[levels[i]] = 1;
        let least = Infinity, most = 0;
        occurs.forEach((is, q) => {
            if (!is) return;
            const size = Math.abs(dequantise(q, low, high));
            least = Math.min(least, size);
            most = Math.max(most, size);
        });
        return [least, most];
    }

    return {compile: (color) => new Painter(color), dequantise, FormulaError, FUNCTIONS: Object.keys(FUNCTIONS)};
})();
