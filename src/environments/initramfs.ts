/**
 * The guest's first file system: one static program and the modules it inserts, as a cpio archive of the kind "newc"
 * (Documentation/driver-api/early-userspace/buffer-format.rst of Linux). The same input gives the same bytes.
 */

export interface InitramfsModule {
  /** The module's name, without number and `.ko`. */
  name: string;
  content: Uint8Array;
}

/** `/init` is `guestProgram`; the modules become `/modules/NN-name.ko` in the order given, which is the order they go in. */
export function buildInitramfs(guestProgram: Uint8Array, modules: readonly InitramfsModule[]): Buffer {
  const archive = new Archive();
  archive.add("dev", directory);
  archive.add("dev/console", characterDevice, { device: [5, 1] }); // the kernel opens it for init before anything is mounted
  archive.add("init", program, { content: guestProgram });
  archive.add("modules", directory);
  for (const [index, module] of modules.entries()) archive.add(`modules/${String(index).padStart(2, "0")}-${module.name}.ko`, plainFile, { content: module.content });
  archive.add("proc", directory);
  archive.add("sys", directory);
  return archive.end();
}

const directory = 0o040755;
const plainFile = 0o100644;
const program = 0o100755;
const characterDevice = 0o020600;

class Archive {
  private readonly parts: Uint8Array[] = [];
  private length = 0;
  private inode = 0;

  add(name: string, mode: number, { content = new Uint8Array(0), device = [0, 0] }: { content?: Uint8Array; device?: readonly [number, number] } = {}): void {
    this.inode += 1;
    this.entry(name, this.inode, mode, (mode & 0o170000) === 0o040000 ? 2 : 1, content, device);
  }

  end(): Buffer {
    this.entry("TRAILER!!!", 0, 0, 1, new Uint8Array(0), [0, 0]);
    this.pad(512);
    return Buffer.concat(this.parts, this.length);
  }

  private entry(name: string, inode: number, mode: number, links: number, content: Uint8Array, device: readonly [number, number]): void {
    const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, device[0], device[1], name.length + 1, 0];
    this.push(Buffer.from(`070701${fields.map((field) => field.toString(16).toUpperCase().padStart(8, "0")).join("")}${name}\0`, "latin1"));
    this.pad(4);
    this.push(content);
    this.pad(4);
  }

  private push(bytes: Uint8Array): void {
    this.parts.push(bytes);
    this.length += bytes.length;
  }

  private pad(multiple: number): void {
    const missing = (multiple - (this.length % multiple)) % multiple;
    if (missing > 0) this.push(new Uint8Array(missing));
  }
}
