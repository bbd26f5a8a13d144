/** Where what the user has not set is looked for. */
import { afterEach, expect, test, vi } from "vitest";
import { settings } from "../../src/base/settings.js";

const there = vi.hoisted(() => new Set<string>());
vi.mock("node:fs", async (original) => ({ ...(await original<typeof import("node:fs")>()), existsSync: (path: string) => there.has(path) }));

const before = process.env["SSL_CERT_FILE"];
afterEach(() => {
  if (before === undefined) delete process.env["SSL_CERT_FILE"];
  else process.env["SSL_CERT_FILE"] = before;
});

test("the system's certificates, where distributions keep them", () => {
  delete process.env["SSL_CERT_FILE"];
  expect(settings.systemCertificates()).toBe("/etc/ssl/certs/ca-certificates.crt");
  there.add("/etc/ssl/ca-bundle.pem");
  expect(settings.systemCertificates()).toBe("/etc/ssl/ca-bundle.pem");
  there.add("/etc/pki/tls/certs/ca-bundle.crt");
  expect(settings.systemCertificates()).toBe("/etc/pki/tls/certs/ca-bundle.crt");
  process.env["SSL_CERT_FILE"] = "/mine.pem";
  expect(settings.systemCertificates()).toBe("/mine.pem");
});
