"""Fine-tuning samples from package lists and verses: pure functions, so that the same input gives the same bytes.

Every choice is a hash of names, never a random generator. A split is chosen by the name of the *source* package without its
version numbers (or by the chapter of a verse), so that siblings that repeat each other's text stand in one split.
"""
import collections
import hashlib
import itertools
import re

import task_tags

SPLITS = ("train", "validation", "test")
Package = collections.namedtuple("Package", "name section group synopsis paragraphs")


def draw(*key):
    """A number in [0, 1) that depends on the key only."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, key)).encode()).digest()[:7], "big") / 2**56


def split_of(group):
    place = draw("split", group)
    return "validation" if place < 0.05 else "test" if place < 0.1 else "train"


def parse_packages(index_texts, descriptions):
    """Packages by name, from the texts of Packages files and {name: paragraphs}; those without a section are left out."""
    found = {}
    for stanza in itertools.chain.from_iterable(text.split("\n\n") for text in index_texts):
        fields = dict(re.findall(r"^(Package|Section|Source): (\S+)", stanza, re.M))
        name = fields.get("Package")
        if not name or name in found or "Section" not in fields or not descriptions.get(name):
            continue
        group = re.sub(r"[\d.]+", "", fields.get("Source", name)).strip("-") or name
        synopsis, *rest = descriptions[name]
        found[name] = Package(name, fields["Section"].split("/")[-1], group, synopsis, rest)
    return [found[name] for name in sorted(found)]


def once(packages, text):
    """The packages whose text no earlier package has."""
    seen = set()
    for package in packages:
        key = text(package)
        if key not in seen:
            seen.add(key)
            yield package


def distinct(packages):
    """The packages with a first paragraph that no other source has; of a source's packages that share one, the first."""
    groups = collections.defaultdict(set)
    long = [package for package in packages if package.paragraphs]
    for package in long:
        groups[package.paragraphs[0]].add(package.group)
    return list(once([package for package in long if len(groups[package.paragraphs[0]]) == 1], lambda package: package.paragraphs[0]))


def whole_text(package):
    return "\n".join([package.synopsis, *package.paragraphs])


def sections(packages):
    for package in once(packages, whole_text):
        yield package.group, package.name, {"text": whole_text(package), "label": package.section}


def tokens(packages):
    """One sample per paragraph of at least 8 words and at most 200; of those without a name, one in five is kept."""
    split = {}
    for package in packages:
        for number, paragraph in enumerate(package.paragraphs):
            if paragraph not in split:
                split[paragraph] = package.group, f"{package.name} {number}", task_tags.split_words(paragraph)
    names = {package.name for package in packages}
    projects = task_tags.project_names(names, (words for _, _, words in split.values()))
    for group, identity, words in split.values():
        if not 8 <= len(words) <= 200:
            continue
        tags = task_tags.tag(words, names, projects)
        if any(tag != "O" for tag in tags) or draw("without a name", identity) < 0.2:
            yield group, identity, {"tokens": words, "tags": tags}


# A full stop that ends a sentence: not that of "e.g.", "i.e.", "etc." inside a sentence, of a version or a file's name.
STOP = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)(?<!\bcf)\.(?=\s|$)")
CONTENT = re.compile(r"[Tt]his (?:meta-?|dummy |virtual |binary |library |library-only |data |transitional )?package "
                     r"(?:also |only |just )?(contains|provides|includes|ships|installs|enables|depends on|supplies) ")


def sentence_from(context, start):
    """[start, end) up to the full stop or the end of the paragraph; None where it is no usable answer."""
    line_end = context.find("\n", start)
    line_end = len(context) if line_end < 0 else line_end
    stop = STOP.search(context, start, line_end)
    end = stop.start() if stop else line_end
    answer = context[start:end]
    usable = 10 <= len(answer) <= 300 and stop and answer == answer.strip()
    return (start, end) if usable else None


def find_content(package, context):
    """What follows "This package contains" (or provides, …), and the verb asked for."""
    for match in CONTENT.finditer(context):
        span = sentence_from(context, match.end())
        if span:
            return match[1], span
    return None


def find_definition(package, context):
    """What follows "NAME is" at the start of a sentence, when it starts with an article."""
    match = re.search(rf"(?:^|\. |\n){re.escape(package.name)} is (?=(?:an?|the) )", context, re.I)
    return match and sentence_from(context, match.end())


VERBS = {"contains": "contain", "provides": "provide", "includes": "include", "ships": "ship", "installs": "install",
         "enables": "enable", "depends on": "depend on", "supplies": "supply"}


def spans(packages):
    """SQuAD-like: at most one question on content and one on what the thing is per package; of the descriptions without a
    sentence on content, one in four is asked about it all the same, and has no answer (SQuAD v2)."""
    for package in distinct(packages):
        context = "\n".join(package.paragraphs)
        content, definition = find_content(package, context), find_definition(package, context)
        if content:
            verb, span = content
            question = f"What does the package {package.name} {VERBS[verb]}?"
            yield package.group, package.name + " content", span_sample(question, context, span)
        elif not CONTENT.search(context) and draw("no answer", package.name) < 0.25:
            verb = "contain" if draw("verb", package.name) < 2 / 3 else "provide"  # as in the others, or the verb would tell
            question = f"What does the package {package.name} {verb}?"
            yield package.group, package.name + " content", span_sample(question, context, None)
        if definition:
            yield package.group, package.name + " definition", span_sample(f"What is {package.name}?", context, definition)


def span_sample(question, context, span):
    """Offsets count Unicode code points of the context."""
    answers = {"text": [context[slice(*span)]], "answer_start": [span[0]]} if span else {"text": [], "answer_start": []}
    return {"question": question, "context": context, "answers": answers}


def instruct(packages):
    """Half of the packages are described, a quarter get a synopsis written, a quarter a section named."""
    for package in distinct(packages):
        kind, first = draw("instruct", package.name), package.paragraphs[0]
        if kind < 0.5:
            prompt = f"Describe the Debian package {package.name} (section {package.section})."
            response = f"{package.synopsis}\n{first}"
        elif kind < 0.75:
            prompt, response = f"Write a one-line synopsis for this description of a package:\n{first}", package.synopsis
        else:
            prompt = f"Name the section of Debian that this package belongs to:\n{package.synopsis}\n{first}"
            response = package.section
        yield package.group, package.name, {"prompt": prompt, "response": response}


def pick(key, candidates, unwanted, count):
    """`count` different candidates, drawn by the key, none of them in `unwanted`; fewer where there are too few."""
    chosen = []
    for attempt in range(20 * count):
        candidate = candidates[int(draw("pick", key, attempt) * len(candidates))]
        if candidate not in unwanted and candidate not in chosen:
            chosen.append(candidate)
            if len(chosen) == count:
                break
    return chosen


def choices(packages):
    """Four choices: a package's section, or (half of them) its synopsis among those of its section and split, which is the
    harder question; wrong synopses come from other source packages."""
    described = distinct(packages)
    all_sections = sorted({package.section for package in packages})
    rivals = collections.defaultdict(list)
    own = collections.defaultdict(set)
    for package in described:
        rivals[package.section, split_of(package.group)].append(package.synopsis)
    for package in packages:
        own[package.group].add(package.synopsis)
    for package in described:
        if draw("choices", package.name) < 0.5:
            question = "To which section of Debian does this package belong?\n" + whole_text(package)
            right, wrong = package.section, pick(package.name, all_sections, {package.section}, 3)
        else:
            question = "Which synopsis fits this description of a package?\n" + package.paragraphs[0]
            candidates = rivals[package.section, split_of(package.group)]
            right, wrong = package.synopsis, pick(package.name, candidates, own[package.group], 3)
        if len(wrong) == 3:
            answer = int(draw("answer", package.name) * 4)
            yield package.group, package.name, {"question": question, "choices": wrong[:answer] + [right] + wrong[answer:],
                                                "answer": answer}


REFERENCE = re.compile(r"(?:^|[ >])((?:I{1,3} )?[A-Z][A-Za-z ]*?) (\d+):(\d+): ")


def parse_verses(marked_up):
    """{(book, chapter, verse): text} from the markup that diatheke prints, a verse a line. What stands before a reference
    are headings, which diatheke repeats on every line."""
    verses = {}
    for line in marked_up.splitlines():
        match = REFERENCE.search(re.sub(r"<title.*?</title>", " ", line))
        if match:
            text = re.sub(r"<title.*?</title>|<note.*?</note>|<(?:l|lg|lb|div|p)[ /][^>]*>", " ", match.string[match.end():])
            text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>|¶", "", text)).strip()
            if 10 <= len(text) <= 1000:  # the last "verse" of a translation carries its glossary
                verses.setdefault((match[1].strip(), int(match[2]), int(match[3])), text)
    return verses


def word_set(text):
    return frozenset(re.findall(r"[a-z]+", text.lower()))


def likeness(a, b):
    return len(a & b) / max(1, len(a | b))


def most_alike(words, postings, allowed):
    """Of the allowed verses that have one of the five rarest words, the one with most words in common; None without any.
    Words of more than 100 verses find only what all verses share, slowly."""
    known = [(len(postings[word]), word) for word in words if word in postings]
    rare = [word for count, word in sorted(known)[:5] if count <= 100]
    near = {verse for word in rare for verse in postings[word] if allowed(verse)}
    return max(near, key=lambda verse: (likeness(words, postings.words[verse]), verse), default=None)


def neighbour(verse, others):
    """The nearest verse in the chapter, the one before or the one after by the draw; None without others."""
    side = 1 if draw("side", *verse) < 0.5 else -1
    return min(others, key=lambda other: (abs(other[2] - verse[2]), side * other[2]), default=None)


class Postings(dict):
    """word -> verses of one split that have it; `words` has the set of words of each verse."""

    def __init__(self, verses, words):
        super().__init__()
        self.words = words
        for verse in verses:
            for word in words[verse]:
                self.setdefault(word, []).append(verse)


def pairs(first, second):
    """Every verse of `first` twice: with the same verse of `second` (paraphrase), and with another one of `second` from the
    same split (other): a neighbour in the chapter or, half of them, the verse that shares most words. A verse that the
    second translation words like the true one (parallel stories, refrains) is no negative; verses that occur twice are left out."""
    repeated = [collections.Counter(translation.values()) for translation in (first, second)]
    shared = sorted(verse for verse in first.keys() & second.keys()
                    if repeated[0][first[verse]] == 1 and repeated[1][second[verse]] == 1)
    words = {verse: word_set(second[verse]) for verse in shared}
    postings = {split: Postings([verse for verse in shared if split_of(chapter_of(verse)) == split], words) for split in SPLITS}
    chapters = collections.defaultdict(list)
    for verse in shared:
        chapters[chapter_of(verse)].append(verse)
    for verse in shared:
        identity, group = "{} {}:{}".format(*verse), chapter_of(verse)
        yield group, identity + " same", {"text_a": first[verse], "text_b": second[verse], "label": "paraphrase"}

        def allowed(other, verse=verse):
            return likeness(words[verse], words[other]) < 0.5

        near = None
        if draw("negative", identity) < 0.5:
            near = most_alike(word_set(first[verse]), postings[split_of(group)], allowed)
        if near is None:
            near = neighbour(verse, filter(allowed, chapters[group]))
        if near is not None:
            yield group, identity + " other", {"text_a": first[verse], "text_b": second[near], "label": "other"}


def chapter_of(verse):
    return f"{verse[0]} {verse[1]}"
