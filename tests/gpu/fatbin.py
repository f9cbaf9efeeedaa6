"""Takes the code for other GPUs out of a library: payloads become zeros, which compress to nothing; no offset changes.

A fat binary (read off nvcc's output, compared with `cuobjdump -lelf`) is a header (u32 magic, u16 version, u16 its own
size, u64 size of what follows) and entries: u16 kind (1 PTX, 2 machine code), u16 version, u32 header size, u64 payload
size, and at byte 28 the u32 architecture (90: sm_90). The runtime chooses an entry by its header and never reads the others."""
import struct
from collections import Counter

import elf

MAGIC = 0xBA55ED50
HEADER = struct.Struct("<IHHQ")
ENTRY = struct.Struct("<HHIQ")
ARCHITECTURE = 28
SECTIONS = (".nv_fatbin", "__nv_relfatbin")


def entries(data, start, size):
    """(kind, architecture, payload position, payload size) of each entry of the fat binaries in a section."""
    position, end = start, start + size
    while position + HEADER.size <= end:
        magic, _, header_size, length = HEADER.unpack_from(data, position)
        if magic != MAGIC:  # between two of them: padding
            position += 8
            continue
        entry = position + header_size
        position = entry + length
        while entry < position:
            kind, _, entry_header, payload = ENTRY.unpack_from(data, entry)
            (architecture,) = struct.unpack_from("<I", data, entry + ARCHITECTURE)
            if entry_header <= ARCHITECTURE or entry + entry_header + payload > position:
                raise ValueError(f"the entry at byte {entry} does not end within its fat binary")
            yield kind, architecture, entry + entry_header, payload
            entry += entry_header + payload


def blank(data, keep):
    """Zeros in the bytearray `data`, an ELF file, for all GPUs but the architectures `keep`.

    Returns ({architecture: entries kept}, bytes blanked); ValueError where nothing would be left."""
    kept, blanked = Counter(), 0
    found = elf.sections(data)
    for name in SECTIONS:
        if name not in found:
            continue
        for _, architecture, start, size in entries(data, *found[name][:2]):
            if architecture in keep:
                kept[architecture] += 1
            else:
                data[start:start + size] = bytes(size)
                blanked += size
    if not kept:
        raise ValueError(f"no code for {sorted(keep)} in {', '.join(name for name in SECTIONS if name in found) or 'any section'}")
    return kept, blanked
