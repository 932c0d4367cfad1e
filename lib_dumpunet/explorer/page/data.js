// The page's data, and maps that are decompressed on first use.

(function () {
    "use strict";

    const HEAD = 16; // bytes of a map's ranges

    function fromBase64(text) {
        const newest = /** @type {any} */ (Uint8Array); // Uint8Array.fromBase64, in browsers since 2025
        if (newest.fromBase64) return newest.fromBase64(text);
        const signs = atob(text);
        const bytes = new Uint8Array(signs.length);
        for (let i = 0; i < signs.length; i++) bytes[i] = signs.charCodeAt(i);
        return bytes;
    }

    /** The text of an element, which the page always has. @param {string} id */
    const textOf = (id) => /** @type {HTMLElement} */ (document.getElementById(id)).textContent;

    async function unpack(number) {
        const packed = new Blob([fromBase64(textOf("blob-" + number))]);
        const plain = packed.stream().pipeThrough(new DecompressionStream("deflate"));
        return new Uint8Array(await new Response(plain).arrayBuffer());
    }

    // The maps of one layer, for all its names in each of its frames.
    class Maps {
        constructor(told) {
            this.names = told.names || [told.name];
            this.heads = told.heads || null;
            this.variance = told.variance || [0];
            this.total = told.total || 1;
            this.frames = told.frames || [0];
            this.height = told.size[0];
            this.width = told.size[1];
            this.source = told.source || told.size;
            this._blob = told.blob;
            this._loading = null;
        }

        get isLoaded() {
            return this._view !== undefined;
        }

        load() {
            if (!this._loading) {
                this._loading = unpack(this._blob).then((bytes) => {
                    this._view = new DataView(bytes.buffer);
                });
            }
            return this._loading;
        }

        // The last available frame that is not after the wanted one, in the same pass; -1 if there is none.
        frameAt(frame, isSamePass) {
            let found = -1;
            this.frames.forEach((here, i) => {
                if (here <= frame && isSamePass(here, frame)) found = i;
            });
            return found;
        }

        // One map: its levels, their range, and the range of the original map before downscaling.
        map(place, name) {
            const view = /** @type {DataView} */ (this._view);
            const count = this.names.length, size = this.height * this.width;
            const start = place * count * (HEAD + size);
            const range = (row) => view.getFloat32(start + 4 * (row * count + name), true);
            const at = start + HEAD * count + name * size;
            const low = range(0);
            return {
                levels: new Uint8Array(view.buffer, at, size),
                low, high: range(1), fullLow: range(2), fullHigh: range(3),
                width: this.width, height: this.height,
                isThere: !Number.isNaN(low),
            };
        }
    }

    const data = JSON.parse(textOf("data"));
    data.layers.forEach((layer) => {
        if (layer.summary) layer.summary = new Maps(layer.summary);
        if (layer.details) layer.details = new Maps(layer.details);
    });
    data.words.forEach((word) => {
        word.maps = new Maps(word);
    });
    const signs = fromBase64(data.palette);
    data.palette = Array.from({length: 256}, (_, i) => signs.subarray(3 * i, 3 * i + 3));

    globalThis.DumpUNetData = data;
})();
