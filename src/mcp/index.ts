/** MCP: the face that agents see. Loaded only when a server is made, as its libraries take 100 ms. */
export { createServer, type CreateServerOptions, type ToolProfile } from "./server.js";
export { serveStdio, type ServeStdioOptions } from "./stdio.js";
export const serveHttp: typeof import("./http.js").serveHttp = async (...args) => (await import("./http.js")).serveHttp(...args); // with a library of its own
export type { ServeHttpOptions } from "./http.js";
