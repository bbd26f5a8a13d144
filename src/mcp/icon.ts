import type { Icon } from "@modelcontextprotocol/server";

/** A flame in a box: what burns in it stays in it. */
const svg =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><rect x="4" y="4" width="40" height="40" rx="8" fill="#1d2433"/><path d="M25 9c2 7 10 10 10 20a11 11 0 0 1-22 0c0-6 4-9 6-14 2 2 3 4 3 7 3-3 4-8 3-13z" fill="#ff8a3d"/><path d="M25 24c1 3 4 5 4 9a5 5 0 0 1-10 0c0-3 2-4 3-6l2 2c1-1 1-3 1-5z" fill="#ffd166"/></svg>';

export const icons: Icon[] = [{ src: `data:image/svg+xml;base64,${Buffer.from(svg).toString("base64")}`, mimeType: "image/svg+xml", sizes: ["any"] }];
