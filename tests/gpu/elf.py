"""What packing needs to know of ELF files, 64 bits, little-endian: sections, and where the loader looks for libraries.

Layout: "System V Application Binary Interface", chapters 4 and 5."""
import struct

RPATH, RUNPATH, STRTAB = 15, 29, 5
DYNAMIC_ENTRY = struct.Struct("<qQ")


class NotElf(Exception):
    """The file is no 64-bit ELF file, or lacks what was asked for."""


def is_elf(data):
    return data[:6] == b"\x7fELF\x02\x01"


def sections(data):
    """{name: (offset, size, address)} of the file's sections; the last of several of one name."""
    if not is_elf(data):
        raise NotElf("no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * entry_size) for i in range(count)]
    strings = headers[names][4]
    return {text(data, strings + name): (offset, size, address) for name, _, _, address, offset, size in headers}


def text(data, start):
    """The zero-terminated string that begins at `start`."""
    return bytes(data[start:data.index(b"\0", start)]).decode()


def search_path(data):
    """(position of its dynamic entry, position of its text, text) of the file's own library path; None without one."""
    found = sections(data)
    offset, size, _ = found[".dynamic"]
    strings = found[".dynstr"][0]
    for position in range(offset, offset + size, DYNAMIC_ENTRY.size):
        tag, value = DYNAMIC_ENTRY.unpack_from(data, position)
        if tag in (RPATH, RUNPATH):
            return position, strings + value, text(data, strings + value)
    return None


def set_search_path(data, path):
    """Replaces the library path in the bytearray `data`, in place: the new one must not be longer.

    It becomes an RPATH, which unlike a RUNPATH also serves the libraries of libraries and what they open later."""
    found = search_path(data)
    if found is None:
        raise NotElf("the file has no library path to replace: link it with one (CMake's build folders have)")
    entry, start, old = found
    if len(path) > len(old):
        raise NotElf(f"'{path}' does not fit in the place of '{old}'")
    struct.pack_into("<q", data, entry, RPATH)
    data[start:start + len(old)] = path.encode().ljust(len(old), b"\0")
