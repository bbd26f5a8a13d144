/** The command line as it is shipped: `node` runs it. */
export const main = new URL("../dist/main.cjs", import.meta.url).pathname;
