// Colours of feature maps, the same as Dump U-Net draws: first the transform, then the method. All numbers are float32,
// rounded after every operation, in the order of the Python code in image/, so that pixels are equal.

globalThis.DumpUNetColor = (function () {
    "use strict";

    const f = Math.fround;
    const TOP = 255;
    const MOST_CHARACTERS = 1000, MOST_NODES = 500, MOST_DEPTH = 100, MOST_BRACKETS = 50, MOST_SHOWN = 40;
    const GREATEST = f(3.4028234663852886e38), SMALLEST = f(1.401298464324817e-45);
    const CONSTANTS = {pi: Math.PI, e: Math.E};
    const FORMULAS = {rgb: ["abs(v)", "abs(v)", "abs(v)"], hsl: ["(2+v)/3", "1.0", "0.5"]};
    const EXAMPLE = "Write arithmetic on v, for example (2+v)/3.";

    // --- functions of numbers ---

    const bits = new Int32Array(1), float = new Float32Array(bits.buffer);
    const isNegative = (x) => x < 0 || Object.is(x, -0);
    const withSign = (x, y) => (isNegative(y) ? -Math.abs(x) : Math.abs(x));
    const flag = (held) => (held ? 1 : 0);

    // Half to even, as NumPy does; Math.round goes up.
    function rint(x) {
        const low = Math.floor(x), rest = x - low;
        const whole = rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : rest >= 0.5 ? low + 1 : x;
        return whole === 0 ? withSign(0, x) : whole;
    }

    function remainder(a, b) {
        const rest = a % b;
        if (!b || Number.isNaN(rest)) return rest;
        if (!rest) return withSign(0, b);
        return (b < 0) !== (rest < 0) ? f(rest + b) : rest;
    }

    function floorDivide(a, b) {
        if (!b) return f(a / b);
        const rest = a % b;
        let quotient = f(f(a - rest) / b);
        if (rest && (b < 0) !== (rest < 0)) quotient = f(quotient - 1);
        if (quotient === 0) return withSign(0, f(a / b));
        const whole = Math.floor(quotient);
        return f(quotient - whole) > 0.5 ? f(whole + 1) : whole;
    }

    // C's pow gives 1 where JavaScript's gives NaN.
    function power(a, b) {
        return a === 1 || (a === -1 && !Number.isFinite(b) && !Number.isNaN(b)) ? 1 : Math.pow(a, b);
    }

    function nextAfter(a, b) {
        if (Number.isNaN(a) || Number.isNaN(b)) return NaN;
        if (a === b) return b;
        if (a === 0) return withSign(SMALLEST, b);
        float[0] = a;
        bits[0] += (a < b) === (a > 0) ? 1 : -1;
        return float[0];
    }

    function spacing(x) {
        if (!Number.isFinite(x)) return NaN;
        return f(nextAfter(x, isNegative(x) ? -Infinity : Infinity) - x);
    }

    function logAdd(log, exp, one) {
        return (a, b) => {
            if (a === b) return f(a + one);
            const apart = f(a - b);
            if (apart > 0) return f(a + f(log(f(exp(-apart)))));
            if (apart <= 0) return f(b + f(log(f(exp(apart)))));
            return apart;
        };
    }

    function heaviside(x, zero) {
        return Number.isNaN(x) ? NaN : x === 0 ? zero : flag(x > 0);
    }

    const maximum = (a, b) => (a >= b || Number.isNaN(a) ? a : b);
    const minimum = (a, b) => (a <= b || Number.isNaN(a) ? a : b);

    function round(x, places) {
        if (places === undefined) return rint(x);
        const scale = f(Math.pow(10, rint(places)));
        return f(rint(f(x * scale)) / scale);
    }

    function sinc(x) {
        const y = f(f(Math.PI) * (x === 0 ? f(1e-20) : x));
        return f(f(Math.sin(y)) / y);
    }

    function nanToNum(x) {
        return Number.isNaN(x) ? 0 : Math.max(-GREATEST, Math.min(GREATEST, x));
    }

    const TO_RADIANS = f(Math.PI / 180), TO_DEGREES = f(180 / Math.PI);

    // By name: the function, and the least and most arguments that it takes.
    const FUNCTIONS = {
        absolute: [Math.abs, 1], add: [(a, b) => a + b, 2], arccos: [Math.acos, 1], arccosh: [Math.acosh, 1],
        arcsin: [Math.asin, 1], arcsinh: [Math.asinh, 1], arctan: [Math.atan, 1], arctan2: [Math.atan2, 2],
        arctanh: [Math.atanh, 1], cbrt: [Math.cbrt, 1], ceil: [Math.ceil, 1], copysign: [withSign, 2],
        cos: [Math.cos, 1], cosh: [Math.cosh, 1], deg2rad: [(x) => x * TO_RADIANS, 1],
        degrees: [(x) => x * TO_DEGREES, 1], divide: [(a, b) => a / b, 2], equal: [(a, b) => flag(a === b), 2],
        exp: [Math.exp, 1], exp2: [(x) => Math.pow(2, x), 1], expm1: [Math.expm1, 1], fabs: [Math.abs, 1],
        floor: [Math.floor, 1], floor_divide: [floorDivide, 2],
        fmax: [(a, b) => (a >= b || Number.isNaN(b) ? a : b), 2],
        fmin: [(a, b) => (a <= b || Number.isNaN(b) ? a : b), 2],
        fmod: [(a, b) => a % b, 2], greater: [(a, b) => flag(a > b), 2], greater_equal: [(a, b) => flag(a >= b), 2],
        heaviside: [heaviside, 2], hypot: [Math.hypot, 2], isfinite: [(x) => flag(Number.isFinite(x)), 1],
        isinf: [(x) => flag(Math.abs(x) === Infinity), 1], isnan: [(x) => flag(Number.isNaN(x)), 1],
        less: [(a, b) => flag(a < b), 2], less_equal: [(a, b) => flag(a <= b), 2], log: [Math.log, 1],
        log10: [Math.log10, 1], log1p: [Math.log1p, 1], log2: [Math.log2, 1],
        logaddexp: [logAdd(Math.log1p, Math.exp, f(Math.LN2)), 2],
        logaddexp2: [logAdd((x) => Math.log1p(x) * Math.LOG2E, (x) => Math.pow(2, x), 1), 2],
        logical_and: [(a, b) => flag(a !== 0 && b !== 0), 2], logical_not: [(x) => flag(x === 0), 1],
        logical_or: [(a, b) => flag(a !== 0 || b !== 0), 2],
        logical_xor: [(a, b) => flag((a !== 0) !== (b !== 0)), 2],
        maximum: [maximum, 2], minimum: [minimum, 2], mod: [remainder, 2], multiply: [(a, b) => a * b, 2],
        negative: [(x) => -x, 1], nextafter: [nextAfter, 2], not_equal: [(a, b) => flag(a !== b), 2],
        positive: [(x) => x, 1], power: [power, 2], rad2deg: [(x) => x * TO_DEGREES, 1],
        radians: [(x) => x * TO_RADIANS, 1], reciprocal: [(x) => 1 / x, 1], remainder: [remainder, 2],
        rint: [rint, 1], sign: [Math.sign, 1], signbit: [(x) => flag(isNegative(x)), 1], sin: [Math.sin, 1],
        sinh: [Math.sinh, 1], spacing: [spacing, 1], sqrt: [Math.sqrt, 1], square: [(x) => x * x, 1],
        subtract: [(a, b) => a - b, 2], tan: [Math.tan, 1], tanh: [Math.tanh, 1], true_divide: [(a, b) => a / b, 2],
        trunc: [Math.trunc, 1],
        abs: [Math.abs, 1], acos: [Math.acos, 1], acosh: [Math.acosh, 1], asin: [Math.asin, 1],
        asinh: [Math.asinh, 1], atan: [Math.atan, 1], atan2: [Math.atan2, 2], atanh: [Math.atanh, 1],
        fix: [Math.trunc, 1], float_power: [power, 2], max: [maximum, 2], min: [minimum, 2], pow: [power, 2],
        around: [round, 1, 2], clip: [(x, low, high) => minimum(maximum(x, low), high), 3],
        nan_to_num: [nanToNum, 1], round: [round, 1, 2], sinc: [sinc, 1],
        where: [(held, then, other) => (held !== 0 ? then : other), 3],
    };

    const BINARY = {
        "+": FUNCTIONS.add[0], "-": FUNCTIONS.subtract[0], "*": FUNCTIONS.multiply[0], "/": FUNCTIONS.divide[0],
        "//": floorDivide, "%": remainder, "**": power, "<": FUNCTIONS.less[0], "<=": FUNCTIONS.less_equal[0],
        ">": FUNCTIONS.greater[0], ">=": FUNCTIONS.greater_equal[0], "==": FUNCTIONS.equal[0],
        "!=": FUNCTIONS.not_equal[0],
    };
    const COMPARISONS = new Set(["<", "<=", ">", ">=", "==", "!="]);

    // --- what is wrong with a formula ---

    class FormulaError extends Error {
        constructor(text, position, problem, remedy) {
            super(problem);
            Object.assign(this, {text, position, problem, remedy, field: ""});
        }
    }

    const CHARACTER_REMEDIES = {
        ".": "Functions have no prefix but np and numpy.",
        "[": "A formula sees one number at a time, so there is nothing to choose from.",
        "=": "Compare with ==; arguments have no names here.",
        "^": "Write ** for a power.",
        "&": "Write logical_and(a, b).",
        "|": "Write logical_or(a, b).",
        "!": "Write logical_not(a).",
        "~": "Write logical_not(a).",
        ";": "Give one formula for each channel.",
    };
    const WORD_REMEDIES = {
        and: "Write logical_and(a, b).", or: "Write logical_or(a, b).", not: "Write logical_not(a).",
    };
    const KEYWORDS = new Set(
        ("False None True and as assert async await break class continue def del elif else except finally for from " +
            "global if import in is lambda nonlocal not or pass raise return try while with yield").split(" ")
    );
    const ADVICE = {
        amax: "maximum", amin: "minimum", ceiling: "ceil", ln: "log", sgn: "sign",
        select: "where", sigmoid: "1/(1+exp(-v))", x: "v", V: "v", PI: "pi", E: "e",
    };

    const NEEDS_MANY = new Set(
        ("all any arange argmax argmin argsort array average convolve corrcoef cov cross cumprod cumsum diff " +
            "digitize dot gradient histogram interp linspace matmul mean median nanmax nanmean nanmin nanstd " +
            "nansum ones percentile piecewise polyval prod ptp quantile random sort std sum take trapezoid unique " +
            "unwrap var zeros").split(" ")
    );

    // A character as Python shows it.
    function shown(character) {
        if (character === "'") return `"'"`;
        if (character === "\\") return "'\\\\'";
        return `'${character}'`;
    }

    // Length of the longest common stretches of two words, found by halves, over the mean length of both.
    function likeness(a, b) {
        const matched = (a, b) => {
            let best = 0, ends = [0, 0];
            for (let i = 0; i < a.length; i++) {
                for (let j = 0; j < b.length; j++) {
                    let k = 0;
                    while (i + k < a.length && j + k < b.length && a[i + k] === b[j + k]) k++;
                    if (k > best) [best, ends] = [k, [i, j]];
                }
            }
            if (!best) return 0;
            const [i, j] = ends;
            return best + matched(a.slice(0, i), b.slice(0, j)) + matched(a.slice(i + best), b.slice(j + best));
        };
        return (2 * matched(a, b)) / (a.length + b.length);
    }

    function closest(name) {
        const known = ["v", ...Object.keys(CONSTANTS), ...Object.keys(FUNCTIONS)];
        const near = known.map((one) => [likeness(one, name), one]).filter(([score]) => score >= 0.6);
        near.sort(([a, x], [b, y]) => b - a || (x < y ? 1 : -1));
        return near.length ? near[0][1] : null;
    }

    // --- from text to a tree ---

    const TOKEN = new RegExp(
        "(?<space>[ \\t\\r\\n]+)|(?<number>(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?)" +
            "|(?<name>[A-Za-z_][A-Za-z_0-9]*)|(?<operator>\\*\\*|//|[<>=!]=|[-+*/%<>(),])", "y"
    );
    const TERNARY = new Set(["if", "else"]);
    const WANTS_OPERAND = new Set(
        ["", "if", "else", "(", ",", "+", "-", "*", "/", "//", "%", "**", "<", ">", "<=", ">=", "==", "!="]
    );

    function tokensOf(text) {
        const tokens = [];
        let at = 0;
        while (at < text.length) {
            TOKEN.lastIndex = at;
            const match = TOKEN.exec(text);
            if (!match) {
                const character = String.fromCodePoint(text.codePointAt(at));
                const remedy = CHARACTER_REMEDIES[character] || EXAMPLE;
                throw new FormulaError(text, at, `${shown(character)} has no meaning in a formula`, remedy);
            }
            const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
            if (KEYWORDS.has(match[0]) && !TERNARY.has(match[0])) {
                const remedy = WORD_REMEDIES[match[0]] || EXAMPLE;
                throw new FormulaError(text, at, `${match[0]} has no meaning in a formula`, remedy);
            }
            if (kind !== "space") tokens.push({kind: TERNARY.has(match[0]) ? "operator" : kind, text: match[0], at});
            at += match[0].length;
        }
        return tokens;
    }

    function checkOrder(text, before, token) {
        if (WANTS_OPERAND.has(before)) {
            const allowed = before === "(" || before === "," ? ["(", ")", "+", "-"] : ["(", "+", "-"];
            if (token.kind === "operator" && !allowed.includes(token.text)) {
                throw new FormulaError(text, token.at, `a value is missing before ${token.text}`, EXAMPLE);
            }
        } else if (token.kind !== "operator") {
            const problem = `an operator is missing before ${token.text.slice(0, MOST_SHOWN)}`;
            throw new FormulaError(text, token.at, problem, "Write 2*v for 2v.");
        }
    }

    // Counts brackets, and in each pair of them pairs an `if` with its `else`.
    class Nesting {
        constructor(text) {
            this.text = text;
            this.open = [];
            this.conditions = [null];
        }

        fail(at, problem, remedy) {
            throw new FormulaError(this.text, at, problem, remedy);
        }

        take(token) {
            const level = this.conditions.length - 1;
            if (token.text === "(") {
                this.open.push(token.at);
                this.conditions.push(null);
                if (this.open.length > MOST_BRACKETS) {
                    this.fail(token.at, "brackets are nested too deeply", `Use at most ${MOST_BRACKETS} levels.`);
                }
            } else if (token.text === "if") {
                if (this.conditions[level] !== null) {
                    this.fail(token.at, "a condition stands inside of another", "Put the inner condition into brackets.");
                }
                this.conditions[level] = token.at;
            } else if (token.text === "else") {
                if (this.conditions[level] === null) {
                    this.fail(token.at, "else has no if before it", "Write a if condition else b.");
                }
                this.conditions[level] = null;
            } else if (token.text === ")" || token.text === ",") {
                this.requireElse();
                if (token.text === ",") return;
                if (!this.open.length) this.fail(token.at, "this bracket was never opened", "Take it out.");
                this.open.pop();
                this.conditions.pop();
            }
        }

        finish() {
            if (this.open.length) this.fail(this.open.pop(), "this bracket is not closed", "Add a closing bracket.");
            this.requireElse();
        }

        requireElse() {
            const start = this.conditions[this.conditions.length - 1];
            if (start !== null) this.fail(start, "this if has no else", "Write a if condition else b.");
        }
    }

    // Tokens in an order that arithmetic has, or an error. They are looked at one by one, as Python's reader does, so
    // that of two mistakes the same is told.
    function checkedTokens(text) {
        if (text.length > MOST_CHARACTERS) {
            const problem = `the formula has ${text.length} characters`;
            throw new FormulaError(text.slice(0, MOST_CHARACTERS), MOST_CHARACTERS, problem, `Use at most ${MOST_CHARACTERS}.`);
        }
        if (!text.trim()) throw new FormulaError(text, 0, "the formula is empty", EXAMPLE);
        let failure = null, tokens;
        try {
            tokens = tokensOf(text);
        } catch (error) {
            failure = error;
            tokens = tokensOf(text.slice(0, error.position));
        }
        const nesting = new Nesting(text);
        let before = "";
        tokens.forEach((token) => {
            checkOrder(text, before, token);
            nesting.take(token);
            before = token.text;
        });
        if (failure) throw failure;
        nesting.finish();
        if (WANTS_OPERAND.has(before)) throw new FormulaError(text, text.length, "the formula ends too early", EXAMPLE);
        return tokens;
    }

    // Python's precedence. A node is {kind, at, ...}; what is read is {node, from}, which begins at a bracket, if any.
    class Reader {
        constructor(text) {
            this.text = text;
            this.tokens = checkedTokens(text);
            this.next = 0;
        }

        peek(...wanted) {
            const token = this.tokens[this.next];
            return token && token.kind === "operator" && wanted.includes(token.text) ? token : null;
        }

        take(...wanted) {
            const token = this.peek(...wanted);
            if (token) this.next++;
            return token;
        }

        all() {
            const first = this.condition();
            if (!this.peek(",")) return first.node;
            return {kind: "tuple", at: first.from};
        }

        condition() {
            const then = this.comparison();
            if (!this.take("if")) return then;
            const held = this.comparison();
            this.take("else");
            const operands = [held.node, then.node, this.condition().node];
            return {node: {kind: "condition", at: then.from, operands}, from: then.from};
        }

        comparison() {
            const first = this.sum(), operators = [], operands = [first.node];
            for (let token; (token = this.take(...COMPARISONS)); ) {
                operators.push(token.text);
                operands.push(this.sum().node);
            }
            if (!operators.length) return first;
            return {node: {kind: "compare", at: first.from, operators, operands}, from: first.from};
        }

        sum() {
            return this.chain(() => this.product(), "+", "-");
        }

        product() {
            return this.chain(() => this.signed(), "*", "/", "//", "%");
        }

        chain(read, ...operators) {
            let left = read();
            for (let token; (token = this.take(...operators)); ) {
                const node = {kind: "binary", at: left.from, operator: token.text, operands: [left.node, read().node]};
                left = {node, from: left.from};
            }
            return left;
        }

        signed() {
            const token = this.take("+", "-");
            if (!token) return this.power();
            const node = {kind: "unary", at: token.at, operator: token.text, operands: [this.signed().node]};
            return {node, from: token.at};
        }

        power() {
            const base = this.called();
            if (!this.take("**")) return base;
            const node = {kind: "binary", at: base.from, operator: "**", operands: [base.node, this.signed().node]};
            return {node, from: base.from};
        }

        called() {
            let called = this.atom();
            while (this.take("(")) {
                const operands = [];
                while (!this.take(")")) {
                    operands.push(this.condition().node);
                    this.take(",");
                }
                called = {node: {kind: "call", at: called.from, called: called.node, operands}, from: called.from};
            }
            return called;
        }

        atom() {
            const token = this.tokens[this.next++];
            if (token.text !== "(") return {node: {kind: token.kind, at: token.at, text: token.text}, from: token.at};
            if (this.take(")")) return {node: {kind: "tuple", at: token.at}, from: token.at};
            const inner = this.condition();
            if (this.take(")")) return {node: inner.node, from: token.at};
            while (!this.take(")")) {
                this.take(",");
                if (!this.peek(")")) this.condition();
            }
            return {node: {kind: "tuple", at: token.at}, from: token.at};
        }
    }

    // --- from a tree to a function ---

    class Compiler {
        constructor(text) {
            this.text = text;
            this.nodes = 0;
        }

        fail(node, problem, remedy) {
            throw new FormulaError(this.text, node.at, problem, remedy);
        }

        // A function of v, with `isConstant` where v plays no part.
        visit(node, depth) {
            this.nodes++;
            if (this.nodes > MOST_NODES || depth > MOST_DEPTH) {
                this.fail(node, "the formula is too long or nested too deeply", "Make it shorter.");
            }
            if (node.kind === "number") return constant(f(Number(node.text)));
            if (node.kind === "name") return this.name(node);
            if (node.kind === "unary") return this.apply(node.operator === "-" ? (x) => -x : (x) => x, node, depth);
            if (node.kind === "binary") return this.apply(BINARY[node.operator], node, depth);
            if (node.kind === "compare") return this.apply(chained(node.operators), node, depth);
            if (node.kind === "condition") return this.apply(FUNCTIONS.where[0], node, depth);
            if (node.kind === "call") return this.call(node, depth);
            return this.fail(node, "this is not arithmetic", EXAMPLE);
        }

        name(node) {
            const name = node.text;
            if (name === "v") return Object.assign((v) => v, {isConstant: false});
            if (Object.hasOwn(CONSTANTS, name)) return constant(f(CONSTANTS[name]));
            if (Object.hasOwn(FUNCTIONS, name)) {
                this.fail(node, `${name} is a function`, `Write ${name}(...) with what it is applied to.`);
            }
            return this.unknown(node);
        }

        unknown(node) {
            if (NEEDS_MANY.has(node.text)) {
                const remedy = "A formula sees one number at a time.";
                this.fail(node, `${node.text} needs more than one number`, remedy);
            }
            const name = node.text.slice(0, MOST_SHOWN);
            const advice = Object.hasOwn(ADVICE, node.text) ? ADVICE[node.text] : closest(name);
            const remedy = advice ? `Write ${advice}.` : "Use v, pi, e and NumPy's element-wise functions.";
            this.fail(node, `${name} is not known`, remedy);
        }

        call(node, depth) {
            const name = node.called.text;
            if (node.called.kind !== "name") {
                this.fail(node.called, "a call is a function's name and values in brackets", "Write 2*(v+1) for 2(v+1).");
            }
            if (name === "v" || Object.hasOwn(CONSTANTS, name)) {
                this.fail(node.called, `${name} is a number, not a function`, `Write ${name}*(v+1) to multiply.`);
            }
            if (!Object.hasOwn(FUNCTIONS, name)) this.unknown(node.called);
            const [apply, least, most = least] = FUNCTIONS[name], count = node.operands.length;
            if (count < least || count > most) {
                const allowed = least === most ? `${least} argument${least > 1 ? "s" : ""}` : `${least} or ${most} arguments`;
                this.fail(node.called, `${name} takes ${allowed}, not ${count}`, "Separate arguments by commas.");
            }
            return this.apply(apply, node, depth);
        }

        apply(function_, node, depth) {
            const parts = node.operands.map((operand) => this.visit(operand, depth + 1));
            const [a, b, c] = parts;
            const applied = [
                null,
                (v) => f(function_(a(v))),
                (v) => f(function_(a(v), b(v))),
                (v) => f(function_(a(v), b(v), c(v))),
            ][parts.length] || ((v) => f(function_(...parts.map((part) => part(v)))));
            if (parts.every((part) => part.isConstant)) return constant(applied(0));
            return Object.assign(applied, {isConstant: false});
        }
    }

    function constant(value) {
        return Object.assign(() => value, {isConstant: true});
    }

    // a < b < c: neighbours are compared, all of which must hold.
    function chained(operators) {
        return (...values) => flag(operators.every((one, i) => BINARY[one](values[i], values[i + 1])));
    }

    // NumPy's own names, as formulas of the original extension have them. Blanks take their place, so that what is read
    // has every character where the user has it.
    const PREFIX = /(?<![A-Za-z_0-9.])(?:np|numpy)\.(?=[A-Za-z_])/g;

    function compileFormula(text) {
        try {
            return readFormula(text.replace(PREFIX, (prefix) => " ".repeat(prefix.length)));
        } catch (error) {
            if (error instanceof FormulaError) error.text = text.slice(0, error.text.length);
            throw error;
        }
    }

    function readFormula(text) {
        const reader = new Reader(text);
        const early = reader.tokens.find((token) => token.kind === "number" && /^0[0-9]*[1-9][0-9]*$/.test(token.text));
        if (early) throw new FormulaError(text, early.at, "the formula cannot be read from here on", EXAMPLE);
        return new Compiler(text).visit(reader.all(), 1);
    }

    // --- transforms ---

    function transformOf(color) {
        const folded = color.method === "white-black";
        if (color.transform === "linear") return linear(color.clamp_min, color.clamp_max, folded);
        if (color.transform === "sigmoid") return sigmoid(f(color.gain), f(color.offset), folded);
        return auto(color.transform === "auto11");
    }

    // All are functions of a map's lowest and highest number that give a function of one number.
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
            } catch (error) {
                error.field = `Color space, ${color.method.toUpperCase()[i]}`;
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

    // Colours of one setting. `table` gives the pixel of each of the 256 levels of a map between `low` and `high`, red
    // in the lowest byte; with `absolute` those of the numbers' sizes, for which it has to see which `levels` occur.
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

    // The range of the sizes of the numbers that occur.
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
