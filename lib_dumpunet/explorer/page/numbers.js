// NumPy's element-wise functions on float32; the caller rounds the result of every operation.

globalThis.DumpUNetNumbers = (function () {
    "use strict";

    const f = Math.fround;
    const GREATEST = f(3.4028234663852886e38), SMALLEST = f(1.401298464324817e-45);

    const bits = new Int32Array(1), float = new Float32Array(bits.buffer);
    const isNegative = (x) => x < 0 || Object.is(x, -0);
    const withSign = (x, y) => (isNegative(y) ? -Math.abs(x) : Math.abs(x));
    const flag = (held) => (held ? 1 : 0);

    // Round half to even, as NumPy does; Math.round rounds half up.
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

    // C's pow returns 1 in cases where JavaScript's returns NaN.
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

    // By the names in Python's table, which also has the number of arguments.
    const FUNCTIONS = {
        absolute: Math.abs, add: (a, b) => a + b, arccos: Math.acos, arccosh: Math.acosh,
        arcsin: Math.asin, arcsinh: Math.asinh, arctan: Math.atan, arctan2: Math.atan2,
        arctanh: Math.atanh, cbrt: Math.cbrt, ceil: Math.ceil, copysign: withSign,
        cos: Math.cos, cosh: Math.cosh, deg2rad: (x) => x * TO_RADIANS,
        degrees: (x) => x * TO_DEGREES, divide: (a, b) => a / b, equal: (a, b) => flag(a === b),
        exp: Math.exp, exp2: (x) => Math.pow(2, x), expm1: Math.expm1, fabs: Math.abs,
        floor: Math.floor, floor_divide: floorDivide,
        fmax: (a, b) => (a >= b || Number.isNaN(b) ? a : b),
        fmin: (a, b) => (a <= b || Number.isNaN(b) ? a : b),
        fmod: (a, b) => a % b, greater: (a, b) => flag(a > b), greater_equal: (a, b) => flag(a >= b),
        heaviside: heaviside, hypot: Math.hypot, isfinite: (x) => flag(Number.isFinite(x)),
        isinf: (x) => flag(Math.abs(x) === Infinity), isnan: (x) => flag(Number.isNaN(x)),
        less: (a, b) => flag(a < b), less_equal: (a, b) => flag(a <= b), log: Math.log,
        log10: Math.log10, log1p: Math.log1p, log2: Math.log2,
        logaddexp: logAdd(Math.log1p, Math.exp, f(Math.LN2)),
        logaddexp2: logAdd((x) => Math.log1p(x) * Math.LOG2E, (x) => Math.pow(2, x), 1),
        logical_and: (a, b) => flag(a !== 0 && b !== 0), logical_not: (x) => flag(x === 0),
        logical_or: (a, b) => flag(a !== 0 || b !== 0),
        logical_xor: (a, b) => flag((a !== 0) !== (b !== 0)),
        maximum: maximum, minimum: minimum, mod: remainder, multiply: (a, b) => a * b,
        negative: (x) => -x, nextafter: nextAfter, not_equal: (a, b) => flag(a !== b),
        positive: (x) => x, power: power, rad2deg: (x) => x * TO_DEGREES,
        radians: (x) => x * TO_RADIANS, reciprocal: (x) => 1 / x, remainder: remainder,
        rint: rint, sign: Math.sign, signbit: (x) => flag(isNegative(x)), sin: Math.sin,
        sinh: Math.sinh, spacing: spacing, sqrt: Math.sqrt, square: (x) => x * x,
        subtract: (a, b) => a - b, tan: Math.tan, tanh: Math.tanh, true_divide: (a, b) => a / b,
        trunc: Math.trunc,
        abs: Math.abs, acos: Math.acos, acosh: Math.acosh, asin: Math.asin,
        asinh: Math.asinh, atan: Math.atan, atan2: Math.atan2, atanh: Math.atanh,
        fix: Math.trunc, float_power: power, max: maximum, min: minimum, pow: power,
        around: round, clip: (x, low, high) => minimum(maximum(x, low), high),
        nan_to_num: nanToNum, round: round, sinc: sinc,
        where: (held, then, other) => (held !== 0 ? then : other),
    };

    const BINARY = {
        "+": FUNCTIONS.add, "-": FUNCTIONS.subtract, "*": FUNCTIONS.multiply, "/": FUNCTIONS.divide,
        "//": floorDivide, "%": remainder, "**": power, "<": FUNCTIONS.less, "<=": FUNCTIONS.less_equal,
        ">": FUNCTIONS.greater, ">=": FUNCTIONS.greater_equal, "==": FUNCTIONS.equal,
        "!=": FUNCTIONS.not_equal,
    };
    const COMPARISONS = new Set(["<", "<=", ">", ">=", "==", "!="]);

    return {f, flag, maximum, minimum, FUNCTIONS, BINARY, COMPARISONS};
})();
