"""The rules by which launch/fetch-task-data makes samples, on made-up lists: no network, no apt."""
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "launch"))
import task_data  # noqa: E402
import task_tags  # noqa: E402

NAMES = {"libfoo2", "python3-bar", "make", "frobnicator", "g++"}


def packages():
    """300 made-up packages of 100 sources in three sections, two of each source with the same description."""
    stanzas, descriptions = [], {}
    for number in range(300):
        name = f"thing{number}x"
        word = "".join(chr(97 + int(digit)) for digit in str(number // 3))
        stanzas.append(f"Package: {name}\nSource: source-{word}{number % 3}\nSection: {('net', 'contrib/games', 'libs')[number % 3]}\n")
        text = ["A thing named {}".format(number if number % 3 == 2 else f"for {word}"), f"Thing{number} does {word} things.",
                f"This package contains the {word} files of version 1.{number}, e.g. some é data. It has more.",
                f"{name} is a tool for C++ and HTTP/2 with python3-bar."]
        descriptions[name] = text if number % 3 else [text[0], text[2], "More on Python 3 for all of the many users here."]
    return task_data.parse_packages(["\n".join(stanzas)], descriptions)


MAKERS = [task_data.sections, task_data.tokens, task_data.spans, task_data.instruct, task_data.choices]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_samples_depend_on_the_lists_only_and_no_source_is_in_two_splits(make):
    first, second = list(make(packages())), list(make(packages()))
    assert len(first) > 50
    assert json.dumps(first) == json.dumps(second)
    splits = {}
    for group, _, sample in first:
        splits.setdefault(task_data.split_of(group), set()).add(json.dumps(sample))
        assert not any(digit.isdigit() for digit in group), "versions of a source are one group"
    assert set(splits) == set(task_data.SPLITS)
    assert not splits["train"] & splits["validation"] and not splits["train"] & splits["test"]


def test_a_section_loses_its_component_and_texts_come_once():
    samples = [sample for _, _, sample in task_data.sections(packages())]
    assert {sample["label"] for sample in samples} == {"net", "games", "libs"}
    assert len({sample["text"] for sample in samples}) == len(samples)


def test_answers_stand_where_they_say():
    samples = [sample for _, _, sample in task_data.spans(packages())]
    answered = [sample for sample in samples if sample["answers"]["text"]]
    assert len(answered) > 100
    for sample in answered:
        [text], [start] = sample["answers"]["text"], sample["answers"]["answer_start"]
        assert sample["context"][start:start + len(text)] == text
    contents = [sample["answers"]["text"][0] for sample in answered if sample["question"].endswith("contain?")]
    assert contents and all(text.startswith("the ") and text.endswith(" data") and "e.g. some é" in text for text in contents)
    kinds = [sample["answers"]["text"][0] for sample in answered if sample["question"].startswith("What is ")]
    assert kinds and all(text == "a tool for C++ and HTTP/2 with python3-bar" for text in kinds)


def test_a_description_without_an_answer_has_none():
    plain = [task_data.Package(f"p{n}", "net", f"p{n}", "synopsis", [f"It draws {n} circles."]) for n in range(100)]
    samples = [sample for _, _, sample in task_data.spans(plain)]
    assert 10 < len(samples) < 50
    assert all(sample["answers"] == {"text": [], "answer_start": []} for sample in samples)


def test_the_right_choice_is_at_its_number():
    known = packages()
    section = {task_data.whole_text(package): package.section for package in known}
    synopses = {}
    for package in known:
        synopses.setdefault(package.paragraphs[0], set()).add(package.synopsis)
    numbers = set()
    for _, _, sample in task_data.choices(known):
        asked, _, text = sample["question"].partition("\n")
        assert len(set(sample["choices"])) == 4
        right = sample["choices"][sample["answer"]]
        assert right == section[text] if "section" in asked else right in synopses[text]
        numbers.add(sample["answer"])
    assert numbers == {0, 1, 2, 3}


@pytest.mark.parametrize("text,expected", [
    ("It is written in C++ (or C/C++).", "O O O O B-LANG O O B-LANG O B-LANG O O"),
    ("Bindings for Python 3, Perl's HTTP and libfoo2.", "O O B-LANG I-LANG O B-LANG O B-PROTOCOL O B-PKG O"),
    ("A Go library: Go away.", "O B-LANG O O O O O"),
    ("Use GNU Frobnicator to make it.", "O B-PKG I-PKG O O O O"),
    ("Frobnicator starts. Frobnicator too, with Make.", "O O O O O O O O O"),
    ("Ogg Vorbis, Ogg, g++ and HTTP/2", "B-FORMAT I-FORMAT O B-FORMAT O B-PKG O B-PROTOCOL"),
])
def test_names_are_tagged_by_the_rules(text, expected):
    words = task_tags.split_words(text)
    tags = task_tags.tag(words, NAMES, {"Frobnicator"})
    assert " ".join(tags) == expected, list(zip(words, tags))


def test_words_keep_every_character():
    text = "\"Foo's\" (bar, baz); C/C++ [x] http://a.b/c. 'quoted' e.g. 1.2.3..."
    assert "".join(task_tags.split_words(text)) == text.replace(" ", "")


def test_projects_are_words_that_are_nearly_always_capitalised():
    sentences = ["We like Frobnicator here"] * 9 + ["they Make it"] * 3 + ["they make it"] * 5
    assert task_tags.project_names(NAMES, map(task_tags.split_words, sentences)) == {"Frobnicator"}


def verses(form):
    words = ["ark", "bow", "cow", "dew", "elk", "fig", "gum", "hen", "ink", "jar", "key", "lip"]
    found = {}
    for chapter in range(1, 61):
        for verse in range(1, 13):
            own, second = words[verse - 1], words[chapter % 12]
            text = f"{own} {second}{own} {words[chapter * verse % 12]}{words[chapter // 5 % 12]} came"
            found["I Kings", chapter, verse] = form.format(text)
    return found


def test_half_of_the_pairs_are_the_same_verse_and_splits_share_none():
    first, second = verses("{} unto thee"), verses("“{} to you”")
    made = list(task_data.pairs(first, second))
    assert made == list(task_data.pairs(first, second))
    place = {text: key for table in (first, second) for key, text in table.items()}
    seen = {split: set() for split in task_data.SPLITS}
    for group, _, sample in made:
        a, b = place[sample["text_a"]], place[sample["text_b"]]
        assert (a == b) == (sample["label"] == "paraphrase")
        seen[task_data.split_of(group)] |= {a, b}
    assert sum(sample["label"] == "other" for _, _, sample in made) >= 0.45 * len(made)
    assert seen["validation"] and not seen["train"] & (seen["validation"] | seen["test"]) and not seen["validation"] & seen["test"]


def test_verses_are_read_from_markup_without_headings():
    text = ('<title type="psalm">A <w>Psalm</w> of David.</title> <l level="1"/> Psalms 3:1: <w a="b">LORD</w>, how many<l eID="1"/> '
            '<l level="2"/>rise up.\n<title>A Psalm of David.</title>I John 3:16: ¶ For <q marker="">God so</q> loved<lb/>us.\n(KJV)\n')
    assert task_data.parse_verses(text) == {("Psalms", 3, 1): "LORD, how many rise up.", ("I John", 3, 16): "For God so loved us."}


@pytest.mark.parametrize("arguments,message", [(["--tasks", "sections,pears"], "there are sections"), (["--limit", "10"], "three numbers"),
                                               (["--limit", "1,-2,3"], "three numbers")])
def test_wrong_arguments_are_one_message(arguments, message, tmp_path):
    run = subprocess.run([ROOT / "launch/fetch-task-data", "--output", tmp_path / "out", *arguments], capture_output=True, text=True)
    assert run.returncode == 2 and message in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_fetched_again(tmp_path):
    for split in task_data.SPLITS:
        (tmp_path / "spans").mkdir(exist_ok=True)
        (tmp_path / f"spans/{split}.jsonl").write_text("mine\n")
    run = subprocess.run([ROOT / "launch/fetch-task-data", "--output", tmp_path, "--tasks", "spans"], capture_output=True, text=True,
                         env={"PATH": "/nowhere:" + str(pathlib.Path(sys.executable).parent)}, check=False)
    assert run.returncode == 0 and "already there" in run.stdout, run.stderr
    assert (tmp_path / "spans/train.jsonl").read_text() == "mine\n"
