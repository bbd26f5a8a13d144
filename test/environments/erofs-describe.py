"""What Python's tarfile makes of an archive, as JSON: path (latin1) -> facts. The last entry of a name counts."""
import hashlib, json, sys, tarfile

TYPES = {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.CONTTYPE: "file", tarfile.GNUTYPE_SPARSE: "file", tarfile.DIRTYPE: "directory",
         tarfile.SYMTYPE: "symlink", tarfile.CHRTYPE: "character", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}


def text(value):
    return value.encode("utf-8", "surrogateescape").decode("latin1")


def normal(name):
    return "/".join(part for part in name.split("/") if part not in ("", "."))


found, groups = {}, {}
with tarfile.open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as archive:
    for each in archive:
        name = normal(text(each.name))
        if each.islnk():
            found[name] = found[normal(text(each.linkname))]
            continue
        raw = each.pax_headers.get("mtime")
        seconds, nanoseconds = int(each.mtime // 1), 0
        if raw is not None:
            whole, _, fraction = raw.partition(".")
            seconds, nanoseconds = int(whole), int(fraction[:9].ljust(9, "0"))
            if raw.startswith("-") and nanoseconds:
                seconds, nanoseconds = seconds - 1, 10**9 - nanoseconds
        facts = {"type": TYPES[each.type], "mode": each.mode & 0o7777, "uid": each.uid, "gid": each.gid, "seconds": seconds, "nanoseconds": nanoseconds}
        if facts["type"] == "file":
            digest = hashlib.sha256()
            reader = archive.extractfile(each)
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
            facts.update(size=each.size, sha256=digest.hexdigest())
        if facts["type"] == "symlink":
            facts["target"] = text(each.linkname)
        if facts["type"] in ("character", "block"):
            facts["device"] = [each.devmajor, each.devminor]
        facts["xattrs"] = {text(key[13:]): value.encode("utf-8", "surrogateescape").hex() for key, value in each.pax_headers.items() if key.startswith("SCHILY.xattr.")}
        facts["group"] = len(groups)
        groups[len(groups)] = None
        found[name] = facts
json.dump(found, sys.stdout)
