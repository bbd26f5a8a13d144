/** Has a guest trust the authority of its gateway, which stands between it and the hosts that secrets are for. */
import type { Channel } from "../channel/index.js";

/** Where distributions have their bundle: Debian and Alpine, Red Hat, SUSE. The first is made where there is none. */
const bundles = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"] as const;
/** From here Debian's update-ca-certificates takes it when it makes the bundle anew. */
const ownFile = "/usr/local/share/ca-certificates/pyro-gateway.crt";

/** What commands are told, as many programs bring certificates of their own. Throws what writing to the guest throws. */
export async function trustInGuest(channel: Channel, certificate: string): Promise<Record<string, string>> {
  const bundle = await firstThere(channel);
  const content = Buffer.from(`\n${certificate.trim()}\n`);
  // In its place, also where that is a link: the rest of the bundle stays what it is.
  await channel.writeFile(bundle ?? bundles[0], content, bundle === undefined ? { makeParents: true, mode: 0o644 } : { append: true });
  await channel.writeFile(ownFile, content, { makeParents: true, mode: 0o644 });
  return trustVariables(bundle ?? bundles[0]);
}

function trustVariables(bundle: string): Record<string, string> {
  return {
    NODE_EXTRA_CA_CERTS: ownFile,
    ...Object.fromEntries(["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO"].map((name) => [name, bundle])),
  };
}

async function firstThere(channel: Channel): Promise<string | undefined> {
  for (const path of bundles) if (await channel.stat(path, { follow: true }).then(({ type }) => type === "file", () => false)) return path;
  return undefined;
}
