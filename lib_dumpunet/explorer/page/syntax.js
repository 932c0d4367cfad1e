// Parse a colour formula into a tree, with Python's precedence. The limits and remedies come from Python, in
// DumpUNetGrammar.

globalThis.DumpUNetSyntax = (function () {
    "use strict";

    const grammar = globalThis.DumpUNetGrammar;
    const {COMPARISONS} = globalThis.DumpUNetNumbers;
    const {length: MOST_CHARACTERS, brackets: MOST_BRACKETS, quoted: MOST_SHOWN} = grammar.limits;
    const EXAMPLE = grammar.example;
    const KEYWORDS = new Set(grammar.keywords), TERNARY = new Set(grammar.ternary);
    const WANTS_OPERAND = new Set(grammar.wantsOperand);

    class FormulaError extends Error {
        constructor(text, position, problem, remedy) {
            super(problem);
            this.text = text;
            this.position = position;
            this.problem = problem;
            this.remedy = remedy;
            this.field = "";
        }
    }

    // A character as Python's repr shows it.
    function shown(character) {
        if (character === "'") return `"'"`;
        if (character === "\\") return "'\\\\'";
        return `'${character}'`;
    }

    const TOKEN = new RegExp(
        "(?<space>[ \\t\\r\\n]+)|(?<number>(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?)" +
            "|(?<name>[A-Za-z_][A-Za-z_0-9]*)|(?<operator>\\*\\*|//|[<>=!]=|[-+*/%<>(),])", "y"
    );
    /** The name of the group that matched. @param {RegExpExecArray} match */
    function nameOfGroup({groups = {}}) {
        return Object.keys(groups).find((name) => groups[name] !== undefined);
    }

    function tokensOf(text) {
        const tokens = [];
        let at = 0;
        while (at < text.length) {
            TOKEN.lastIndex = at;
            const match = TOKEN.exec(text);
            if (!match) {
                const character = String.fromCodePoint(text.codePointAt(at));
                const remedy = grammar.characterRemedies[character] || EXAMPLE;
                throw new FormulaError(text, at, `${shown(character)} has no meaning in a formula`, remedy);
            }
            const kind = nameOfGroup(match);
            if (KEYWORDS.has(match[0])) {
                const remedy = grammar.wordRemedies[match[0]] || EXAMPLE;
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
                    this.fail(token.at, "a condition is nested in another", "Put the inner condition in brackets.");
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
                if (!this.open.length) this.fail(token.at, "this bracket was never opened", "Remove it.");
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

    // Return the tokens, checked for order and brackets. They are checked one by one, as in Python, so that of two
    // mistakes the same one is reported.
    function checkedTokens(text) {
        if (text.length > MOST_CHARACTERS) {
            const problem = `the formula has ${text.length} characters`;
            throw new FormulaError(text.slice(0, MOST_CHARACTERS), MOST_CHARACTERS, problem, `Use at most ${MOST_CHARACTERS}.`);
        }
        if (!text.trim()) throw new FormulaError(text, 0, "the formula is empty", EXAMPLE);
        let failure = /** @type {any} */ (null), tokens;
        try {
            tokens = tokensOf(text);
        } catch (error) {
            failure = error;
            tokens = tokensOf(text.slice(0, failure.position));
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

    // A recursive descent parser with Python's precedence. A node is {kind, at, ...}; methods return {node, from}, where
    // `from` includes an opening bracket.
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

    return {FormulaError, Reader};
})();
