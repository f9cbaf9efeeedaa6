"""Texts meant to break tokenizers: every Unicode block, combining marks, emoji sequences, control characters, ill-formed
UTF-8, long words, things that look like added tokens, and all kinds of white space. The same ones on every run."""
import random

ADDED = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<|endoftext|>", "[MASK", "MASK]", "[mask]", "[[MASK]]",
         "<|endoftext|", "<|endoftext|><|endoftext|>", "<s>", "</s>", "<mask>", "##ing", "##", "[", "<|", "Ġ", "Ġthe"]
SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F,
                           0x3000, 0x200B, 0x180E, 0xFEFF, 0x1C, 0x1F)]
MARKS = [chr(c) for c in (*range(0x300, 0x370), *range(0x1AB0, 0x1AFF), *range(0x1DC0, 0x1E00), *range(0x20D0, 0x20F1),
                          0x302E, 0x302F, 0x1D165, 0x1D166, 0x1D16D, 0x8D4, 0x1E001, 0x93C, 0x94D, 0xF71, 0xF72, 0xF73,
                          0x345, 0x344, 0x5B0, 0x64B, 0x1734, 0x1885, 0xA9BD, 0x111C9, 0x3099, 0x6DD, 0x488)]
SPECIAL = ["İ", "İstanbul", "ß", "ẞ", "Å", "Å", "ﬁ", "Ǆ", "ΑΣ", "σς", "가각", "한국어", "각", "ｱ", "㍿", "Ⅷ", "½", "٣٤", "१२", "𝟘𝒜",
           "漢字かな", "𠀀𪜀", "豈更", "〇々", "café", "cafe\u0301", "e\u0301\u0327", "q\u0307\u0323", "\u1e69", "\u0344a", "नमस्ते", "สวัสดี",
           "🙂", "👩‍👩‍👧‍👦", "👍🏽", "🇩🇪🇫🇷", "❤️", "1️⃣", "\U000e0067\U000e0062", "don't", "I'll've", "'S 'RE", "''s", "can''t",
           "\ufffd", "\0", "\x7f", "\x1b[0m", "\u200d", "\u00ad", "\u202e", "\ufeff", "\ue000", "\U0010ffff", "\ufdd0", "\u0378",
           "\u166d", "\U000111c9", "\u2e43", "\ua7dc", "\U00010d50", "\U00016ea0", "\U00013460", "\U0002ebf0", "\U00010d40"]
WORDS = ("the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one "
         "tokenization internationalization unaffable Donaudampfschifffahrt naïve résumé www.example.com/a?b=c&d=e 3.14159 1,000 "
         "C++ x86_64 e.g. U.S.A. foo_bar --long-option $9.99 100% #tag @user a/b \\n {\"k\": [1,2]} it's we're I'd do not").split(" ")
ILL_FORMED = [b"\x80", b"\xc0\xaf", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xff\xfe", b"\xf4\x90\x80\x80", b"\xc3",
              b"\xe0\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x28\xa1", b"\xf0\x90\x28\xbc"]


def point(r, low=0, high=0x110000):
    while True:
        c = r.randrange(low, high)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def block(r):
    """Neighbours from one 256-code-point block, most often of the first two planes."""
    start = r.randrange(0, 0x110000 if r.random() < 0.1 else 0x20000) & ~0xFF
    return "".join(point(r, max(start, 1), start + 256) if not 0xD800 <= start < 0xE000 else "x" for _ in range(r.randrange(1, 12)))


def piece(r):
    kind = r.randrange(14)
    if kind == 0:
        return block(r)
    if kind == 1:
        return r.choice(ADDED)
    if kind == 2:
        return "".join(r.choices(SPACES, k=r.randrange(1, 5)))
    if kind == 3:
        return r.choice(["a", "E", "é", "\u0915", "漢", " ", "!", ""]) + "".join(r.choices(MARKS, k=r.randrange(1, 6)))
    if kind in (4, 5):
        return r.choice(SPECIAL)
    if kind == 6:
        return r.choice(["a", "ab", "xyz", "é", "字", "1", "-", "🙂", "aA1", "\u0301"]) * r.randrange(1, 130)
    if kind == 7:
        return chr(r.randrange(0, 0x250))
    if kind == 8:
        return "".join(chr(r.randrange(0x20, 0x7F)) for _ in range(r.randrange(1, 20)))
    word = r.choice(WORDS)
    return word if r.random() < 0.7 else r.choice([word.upper(), word.title()])


def texts(count, seed=1):
    """`count` byte strings, after every code point once, by blocks and in words."""
    r = random.Random(seed)
    out = [b"", b" ", b"  ", b"\n\n", b"'", b"''", b" '", b"a'"]
    for start in range(0, 0x110000, 64):  # every assigned block whole, the empty planes thinly
        if start < 0x32000 or 0xE0000 <= start < 0xE0200 or start % 0x8000 == 0:
            out.append(" ".join("a" + chr(c) + "b" for c in range(start, start + 64) if not 0xD800 <= c < 0xE000).encode())
    while len(out) < count:
        parts = [piece(r) for _ in range(r.randrange(1, 9))]
        text = r.choice(["", " ", " ", " "]).join(parts).encode()
        if r.random() < 0.1:
            at = r.randrange(len(text) + 1)
            text = text[:at] + r.choice(ILL_FORMED) + text[at:]
        if r.random() < 0.03 and text:
            text = text[:-1]  # often the middle of a character
        out.append(text)
    return out
