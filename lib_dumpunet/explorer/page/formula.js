// Compile the syntax tree of a colour formula to a function of v, in float32.

globalThis.DumpUNetFormula = (function () {
    "use strict";

    const grammar = globalThis.DumpUNetGrammar;
    const {f, flag, FUNCTIONS, BINARY} = globalThis.DumpUNetNumbers;
    const {FormulaError, Reader} = globalThis.DumpUNetSyntax;
    const {nodes: MOST_NODES, depth: MOST_DEPTH, quoted: MOST_SHOWN} = grammar.limits;
    const CONSTANTS = grammar.constants, ARGUMENTS = grammar.functions, EXAMPLE = grammar.example;
    const NEEDS_MANY = new Set(grammar.needsMany);

    // Ratcliff/Obershelp similarity: total length of recursively found common substrings over the mean length.
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
        const known = ["v", ...Object.keys(CONSTANTS), ...Object.keys(ARGUMENTS)];
        /** @type {[number, string][]} */
        const scores = known.map((one) => [likeness(one, name), one]);
        const near = scores.filter(([score]) => score >= grammar.close);
        near.sort(([a, x], [b, y]) => b - a || (x < y ? 1 : -1));
        return near.length ? near[0][1] : null;
    }

    class Compiler {
        constructor(text) {
            this.text = text;
            this.nodes = 0;
        }

        fail(node, problem, remedy) {
            throw new FormulaError(this.text, node.at, problem, remedy);
        }

        // Return a function of v; `isConstant` says whether it does not depend on v.
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
            if (node.kind === "condition") return this.apply(FUNCTIONS.where, node, depth);
            if (node.kind === "call") return this.call(node, depth);
            return this.fail(node, "this is not arithmetic", EXAMPLE);
        }

        name(node) {
            const name = node.text;
            if (name === "v") return Object.assign((v) => v, {isConstant: false});
            if (Object.hasOwn(CONSTANTS, name)) return constant(f(CONSTANTS[name]));
            if (Object.hasOwn(ARGUMENTS, name)) {
                this.fail(node, `${name} is a function`, `Write ${name}(...) with its argument.`);
            }
            return this.unknown(node);
        }

        unknown(node) {
            if (NEEDS_MANY.has(node.text)) {
                const remedy = "A formula gets one number at a time.";
                this.fail(node, `${node.text} needs more than one number`, remedy);
            }
            const name = node.text.slice(0, MOST_SHOWN);
            const advice = Object.hasOwn(grammar.advice, node.text) ? grammar.advice[node.text] : closest(name);
            const remedy = advice ? `Write ${advice}.` : "Use v, pi, e and NumPy's element-wise functions.";
            this.fail(node, `${name} is not known`, remedy);
        }

        call(node, depth) {
            const name = node.called.text;
            if (node.called.kind !== "name") {
                this.fail(node.called, "a call is a function's name with values in brackets", "Write 2*(v+1) for 2(v+1).");
            }
            if (name === "v" || Object.hasOwn(CONSTANTS, name)) {
                this.fail(node.called, `${name} is a number, not a function`, `Write ${name}*(v+1) to multiply.`);
            }
            if (!Object.hasOwn(ARGUMENTS, name)) this.unknown(node.called);
            const [least, most] = ARGUMENTS[name], count = node.operands.length;
            if (count < least || count > most) {
                const allowed = least === most ? `${least} argument${least > 1 ? "s" : ""}` : `${least} or ${most} arguments`;
                this.fail(node.called, `${name} takes ${allowed}, not ${count}`, "Separate arguments with commas.");
            }
            return this.apply(FUNCTIONS[name], node, depth);
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

    // a < b < c: every comparison of neighbours must hold.
    function chained(operators) {
        return (...values) => flag(operators.every((one, i) => BINARY[one](values[i], values[i + 1])));
    }

    // NumPy prefixes, as in formulas of the original extension. They are replaced by spaces, which keeps the positions
    // of errors right.
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
        if (early) throw new FormulaError(text, early.at, "the formula cannot be parsed from here on", EXAMPLE);
        return new Compiler(text).visit(reader.all(), 1);
    }

    return {compile: compileFormula};
})();
