// OpenSSH's server out of Debian's package, which is unpacked and not installed: nobody who runs these tests gets a server of his machine by that.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openArchive } from "../../src/environments/apt.js";
import { said } from "./guest.js";
import { other, type World } from "./network-world.js";

export const sshPort = 2222;

export interface Sshd {
  /** The private key with which one logs in as `guest`, and the known_hosts file of the server. */
  key: string;
  knownHosts: string;
  /** What the server said, up to now. */
  log(): string;
  end(): void;
}

// The server is a user of his own, 1000, without rights over the host, whether or not we have some: so it needs no account on this machine, and all that
// it started ends with it, as the first process of its namespace ends with its standard input.
const script = `
set -e
mount --bind "$1/passwd" /etc/passwd
exec unshare --user --map-user=1000 --map-group=1000 --pid --fork --kill-child sh -c '
  LD_LIBRARY_PATH="$1/unpacked/usr/lib/$2:$1/unpacked/lib/$2" "$1/unpacked/usr/sbin/sshd" -D -e -f "$1/sshd_config" 2>&1 &
  read -r ignored' sh "$1" x86_64-linux-gnu
`;

/** Serves at other.example.com; what it has is below `world.directory`. */
export async function startSshd(world: World): Promise<Sshd> {
  const directory = join(world.directory, "sshd");
  for (const each of ["unpacked", "home", "apt"]) mkdirSync(join(directory, each), { recursive: true });
  const archive = await openArchive("bookworm", join(directory, "apt"), undefined);
  // What else it needs comes with OpenSSH's client, which is installed.
  for (const name of ["openssh-server", "libwrap0", "libnsl2", "libtirpc3"]) {
    const { version } = await archive.show(name);
    execFileSync("dpkg-deb", ["-x", await archive.download(name, version), join(directory, "unpacked")]);
  }
  for (const name of ["host-key", "key"]) execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join(directory, name)]);
  const hostKey = readFileSync(join(directory, "host-key.pub"), "utf8");
  writeFileSync(join(directory, "known_hosts"), `[other.example.com]:${sshPort} ${hostKey}`);
  writeFileSync(join(directory, "passwd"), `root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::${join(directory, "home")}:/bin/sh\n`);
  writeFileSync(
    join(directory, "sshd_config"),
    `ListenAddress ${other}:${sshPort}\nHostKey ${directory}/host-key\nAuthorizedKeysFile ${directory}/key.pub\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n`,
  );
  const server = world.onInternet("unshare", "--mount", "sh", "-c", script, "sh", directory);
  let log = "";
  server.stdout!.on("data", (chunk: Buffer) => (log += chunk.toString()));
  await said(server.stdout!, /Server listening/);
  return { key: join(directory, "key"), knownHosts: join(directory, "known_hosts"), log: () => log, end: () => server.stdin!.end() };
}
