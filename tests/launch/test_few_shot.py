"""tessera evaluate --few-shot: likelihoods and metrics of choices equal transformers' by lm-evaluation-harness's conventions; refusals."""
import csv
import itertools
import json
import math
import shutil
import statistics

import pytest
import runs
import tokenizers
import torch
import transformers
import yaml
from tiers import slow_but

POSITIONS = 128
QUESTIONS = [
    {"question": "Which license is this?", "choices": ["a", "the GNU General Public License", "none of these"], "answer": 1},
    {"question": "Übergrößenträger – straße: 漢字?", "choices": ["naïve café", "日本語", "x"], "answer": 0},
    {"question": "Return the", "choices": ["value", "values of the arguments", "é", "€uro"], "answer": 3},
    {"question": "What may be copied?", "choices": ["Everything", "it"], "answer": 1},
]
EXAMPLES = [
    {"question": "One?", "choices": ["1", "2"], "answer": 0},
    {"question": "Ä or ö?", "choices": ["Ä", "ö", "both"], "answer": 2},
    {"question": "This program is", "choices": ["free software", "a file"], "answer": 0},
]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """(model of transformers, wheel's tokenizer, our run of it); "begin": the tokenizer puts a token before each text."""
    made = {}

    def of(kind="plain"):
        if kind not in made:
            folder = tmp_path_factory.mktemp("few_shot")
            torch.manual_seed(5)
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=POSITIONS, vocab_size=600)).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
            model.save_pretrained(folder / "theirs")
            tokenizer = json.loads((runs.data("byte_level_bpe") / "tokenizer.json").read_text())
            if kind == "begin":
                end = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<|endoftext|>")
                tokenizer["post_processor"] = {
                    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [end], "tokens": ["<|endoftext|>"]}}}
            (folder / "theirs/tokenizer.json").write_text(json.dumps(tokenizer))
            runs.must(runs.tessera("import", folder / "theirs", folder / "ours"))
            made[kind] = model, tokenizers.Tokenizer.from_file(str(folder / "theirs/tokenizer.json")), folder / "ours"
        return made[kind]

    return of


def encode_pair(tokenizer, context, continuation):
    """As TemplateLM.loglikelihood() and _encode_pair() have it."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        continuation, context = context[-spaces:] + continuation, context[:-spaces]
    if not context:
        return [tokenizer.token_to_id("<|endoftext|>")], tokenizer.encode(continuation, add_special_tokens=False).ids
    whole, before = tokenizer.encode(context + continuation).ids, tokenizer.encode(context).ids
    return before, whole[len(before):]


def log_likelihood(model, tokenizer, context, continuation):
    before, scored = encode_pair(tokenizer, context, continuation)
    assert scored
    tokens = (before + scored)[-POSITIONS - 1:]
    with torch.no_grad():
        rows = model(torch.tensor([tokens[:-1]])).logits[0, -len(scored):].log_softmax(-1)
    return rows[torch.arange(len(scored)), torch.tensor(scored)].sum().item()


def reference(kind, prompts, choices, delimiter=" "):
    model, tokenizer, _ = kind
    return [[log_likelihood(model, tokenizer, prompt, delimiter + choice) for choice in own] for prompt, own in zip(prompts, choices, strict=True)]


def write_lines(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return str(path)


def write_task(folder, questions=QUESTIONS, **keys):
    """A line for each key; those that are None are left out."""
    task = {"data": write_lines(folder / "data.jsonl", questions), "template": "{question}\nAnswer:", "choices": "choices", "answer": "answer", **keys}
    path = folder / "task.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in task.items() if value is not None))
    return path


def evaluate(kind, task, *more):
    """The metrics {name: (value, error)} and the lines of predictions."""
    out = task.parent / "predictions.jsonl"
    done = runs.must(runs.tessera("evaluate", kind[2], "--few-shot", task, "--predictions", out, *more))
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    return {name: (float(value), float(error)) for name, value, error in rows}, [json.loads(line) for line in out.read_text().splitlines()]


def check_likelihoods(lines, expected):
    assert len(lines) == len(expected)
    for line, values in zip(lines, expected, strict=True):
        assert line["log_likelihoods"] == pytest.approx(values, abs=1e-4)


def best(values):
    return max(range(len(values)), key=values.__getitem__)


def check_metrics(metrics, expected, questions, length=len):
    """As the harness's process_results(), mean() and mean_stderr()."""
    answers = [question["answer"] for question in questions]
    normalized = [[value / length(choice) for value, choice in zip(values, question["choices"], strict=True)]
                  for values, question in zip(expected, questions, strict=True)]
    columns = {"acc": [float(best(values) == answer) for values, answer in zip(expected, answers, strict=True)],
               "acc_norm": [float(best(values) == answer) for values, answer in zip(normalized, answers, strict=True)],
               "log_likelihood": [values[answer] for values, answer in zip(expected, answers, strict=True)]}
    assert metrics.keys() == columns.keys()
    for name, column in columns.items():
        error = statistics.stdev(column) / math.sqrt(len(column))
        assert metrics[name] == pytest.approx((statistics.mean(column), error), abs=2e-4), name


def prompt_of(question):
    return question["question"] + "\nAnswer:"


def shown(question):
    return f"{prompt_of(question)} {question['choices'][question['answer']]}\n\n"


CHOICES = [question["choices"] for question in QUESTIONS]


@pytest.mark.parametrize("kind,micro_batch", slow_but([("plain", 3), ("begin", 64)], itertools.product(["plain", "begin"], [1, 3, 64])))
def test_zero_shots(kind, micro_batch, models, tmp_path):
    metrics, lines = evaluate(models(kind), write_task(tmp_path), "--micro-batch", micro_batch)
    expected = reference(models(kind), map(prompt_of, QUESTIONS), CHOICES)
    check_likelihoods(lines, expected)
    check_metrics(metrics, expected, QUESTIONS)
    assert [(line["index"], line["answer"], line["prediction"]) for line in lines] == [
        (i, question["answer"], best(values)) for i, (question, values) in enumerate(zip(QUESTIONS, expected, strict=True))]


@pytest.mark.parametrize("shots", [1, 3])
def test_shots_are_distinct_examples(shots, models, tmp_path):
    """Which ones is ours to draw: for each question, some arrangement of different examples gives exactly our numbers."""
    examples = write_lines(tmp_path / "examples.jsonl", EXAMPLES)
    task = write_task(tmp_path, examples=examples, shots=shots, description="Answer:\n\n", seed=4)
    metrics, lines = evaluate(models(), task)
    expected, drawn = [], []
    for question, line in zip(QUESTIONS, lines, strict=True):
        for chosen in itertools.permutations(range(len(EXAMPLES)), shots):
            prompt = "Answer:\n\n" + "".join(shown(EXAMPLES[i]) for i in chosen) + prompt_of(question)
            values = reference(models(), [prompt], [question["choices"]])[0]
            if line["log_likelihoods"] == pytest.approx(values, abs=1e-4):
                expected.append(values)
                drawn.append(chosen)
                break
    assert len(expected) == len(QUESTIONS)
    check_metrics(metrics, expected, QUESTIONS)
    assert len(set(drawn)) > 1, "not the same ones for all"


def test_never_the_question_itself(models, tmp_path):
    questions = [{"question": f"q{i}", "choices": ["yes", "no"], "answer": 0} for i in range(3)]
    task = write_task(tmp_path, questions, examples=str(tmp_path / "../") + f"/{tmp_path.name}/data.jsonl", shots=2)
    _, lines = evaluate(models(), task)
    for i, line in enumerate(lines):
        others = [questions[j] for j in range(3) if j != i]
        options = [reference(models(), ["".join(map(shown, order)) + prompt_of(questions[i])], [["yes", "no"]])[0]
                   for order in (others, others[::-1])]
        assert any(line["log_likelihoods"] == pytest.approx(values, abs=1e-4) for values in options), i
    done = runs.tessera("evaluate", models()[2], "--few-shot", task, "--shots", 3)
    assert done.returncode == 2 and "has 2 examples" in done.stderr, done.stderr


def test_drawing_depends_on_seed_and_number_alone(models, tmp_path):
    def of(seed, *more):
        examples = write_lines(tmp_path / "examples.jsonl", EXAMPLES)
        return evaluate(models(), write_task(tmp_path, examples=examples, seed=seed), "--shots", 2, *more)[1]
    assert of(1) == of(1) != of(2)
    assert of(1, "--samples", 2) == of(1)[:2]


def test_long_contexts_lose_their_left(models, tmp_path):
    """Also before a choice that fills all positions, which leaves a single token of the context."""
    words = "The license of this program says that you may copy and change it, and give it to others. " * 8
    tokenizer = models()[1]
    full = tokenizer.decode(tokenizer.encode(" a b c d e f g h i j k l m n o p q r s t" * 9).ids[:POSITIONS]).strip()
    assert len(tokenizer.encode(words).ids) > POSITIONS and len(encode_pair(tokenizer, "Answer:", " " + full)[1]) == POSITIONS
    questions = [{"question": words, "choices": ["yes", "not at all", full], "answer": 2}]
    _, lines = evaluate(models(), write_task(tmp_path, questions))
    check_likelihoods(lines, reference(models(), map(prompt_of, questions), [questions[0]["choices"]]))


@pytest.mark.parametrize("template,delimiter", [("{question} ", ""), ("{question}\n\u00a0\u3000", " "), ("{question}", ""), ("", " "), ("", ""),
                                                ("  ", ""), ("{{{question}}} {answer}:", " ")])
@pytest.mark.parametrize("kind", slow_but(["begin"], ["plain", "begin"]))
def test_where_context_and_choice_meet(template, delimiter, kind, models, tmp_path):
    questions = [{"question": question, "choices": ["values", "e and more", "n't x"], "answer": 0} for question in ("Return the", "Is", "x")]
    _, lines = evaluate(models(kind), write_task(tmp_path, questions, template=template, target_delimiter=delimiter))
    check_likelihoods(lines, reference(models(kind), [template.format(**question) for question in questions],
                                       [question["choices"] for question in questions], delimiter))


@pytest.mark.parametrize("unit", ["characters", "bytes", "tokens"])
def test_lengths_that_normalize(unit, models, tmp_path):
    tokenizer = models()[1]
    length = {"characters": len, "bytes": lambda text: len(text.encode()), "tokens": lambda text: len(tokenizer.encode(" " + text).ids)}[unit]
    metrics, lines = evaluate(models(), write_task(tmp_path, normalize=unit))
    expected = reference(models(), map(prompt_of, QUESTIONS), CHOICES)
    check_metrics(metrics, expected, QUESTIONS, length)
    assert [line["prediction_norm"] for line in lines] == [
        best([value / length(choice) for value, choice in zip(values, own, strict=True)]) for values, own in zip(expected, CHOICES, strict=True)]


def test_fixed_choices_and_answers_by_text_in_a_table(models, tmp_path):
    """Single-token choices share an input; CSV holds only texts, so that '1' may be a number or a choice."""
    rows = [{"q": 'a "quoted", one', "right": "no"}, {"q": "two\nlines", "right": "1"}, {"q": "three", "right": "yes"}]
    with open(tmp_path / "data.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["q", "right"])
        writer.writeheader()
        writer.writerows(rows)
    task = write_task(tmp_path, data=str(tmp_path / "data.csv"), template="{q}:", choices=["yes", "no"], answer="right")
    metrics, lines = evaluate(models(), task)
    expected = reference(models(), [row["q"] + ":" for row in rows], [["yes", "no"]] * 3)
    check_likelihoods(lines, expected)
    assert [line["answer"] for line in lines] == [1, 1, 0]
    check_metrics(metrics, expected, [{"choices": ["yes", "no"], "answer": answer} for answer in (1, 1, 0)])


def question(**changes):
    return [QUESTIONS[0], {**QUESTIONS[0], **changes}]


MISTAKES = {
    "placeholder": (dict(template="{qestion}:"), ["task.yaml:2:11 template", "no column 'qestion'", "question, choices, answer", "did you mean 'question'"]),
    "open brace": (dict(template="{question"), ["task.yaml:2:11 template", "{column}", "{{"]),
    "closing brace": (dict(template="a } b"), ["template", "'} b'"]),
    "no name": (dict(template="a {} b"), ["template", "'{} b'"]),
    "no template": (dict(template=None), ["template: missing"]),
    "unknown key": (dict(seperator="x"), ["task.yaml:5:1 seperator: unknown key", "did you mean 'separator'"]),
    "normalize": (dict(normalize="byte"), ["normalize", "'byte'", "did you mean 'bytes'"]),
    "choices column": (dict(choices="choice"), ["task.yaml:3:10 choices", "no column 'choice'", "did you mean 'choices'"]),
    "choices none": (dict(choices=[]), ["choices: the list is empty"]),
    "choices text": (dict(choices="question"), ["data.jsonl:1: column 'question'", "a list"]),
    "choices section": (dict(choices={"a": 1}), ["task.yaml:3:1 choices", "neither"]),
    "fixed choice empty": (dict(choices=["a", ""]), ["choices: one of the choices is empty"]),
    "answer column": (dict(answer="right"), ["task.yaml:4:9 answer", "no column 'right'"]),
    "answer out of range": (dict(questions=question(answer=3)), ["data.jsonl:2: column 'answer' is 3; valid: a number from 0 to 2"]),
    "answer negative": (dict(questions=question(answer=-1)), ["data.jsonl:2", "is -1"]),
    "answer no choice": (dict(questions=question(answer="b")), ["data.jsonl:2", 'is "b"', "the text of a choice"]),
    "answer a list": (dict(questions=question(answer=[1])), ["data.jsonl:2", "is [1]"]),
    "answer null": (dict(questions=question(answer=None)), ["data.jsonl:2", "is null"]),
    "empty choice": (dict(questions=question(choices=["a", ""], answer=0)), ["data.jsonl:2: column 'choices': choice 1 is empty"]),
    "no choices": (dict(questions=question(choices=[])), ["data.jsonl:2: column 'choices' has 0 choices; valid: 1 to 4096"]),
    "many choices": (dict(questions=question(choices=["a"] * 5000)), ["data.jsonl:2", "5000 choices"]),
    "long choice": (dict(questions=question(choices=["a", "é " * 100], answer=0)), ["data.jsonl:2: choice 1", "é", f"reads {POSITIONS} at most"]),
    "no token": (dict(template="{question}", target_delimiter="", questions=question(question="th", choices=["e"], answer=0)), ["data.jsonl:2: choice 0 'e'", "adds no token"]),
    "prompt null": (dict(questions=question(question=None)), ["data.jsonl:2: column 'question'", "valid: text"]),
    "no examples": (dict(shots=2), ["task.yaml:5:8 shots: 2", "no examples"]),
    "few examples": (dict(shots=3, examples="DATA"), ["task.yaml:5:8 shots: 3", "has 1 examples", "at most 1"]),
    "negative shots": (dict(shots=-1), ["shots: -1", "from 0 to 1000"]),
    "no data": (dict(data="nowhere.jsonl"), ["nowhere.jsonl", "no such file"]),
    "data of a kind": (dict(data="README.md"), ["README.md"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, models, tmp_path):
    changes, words = MISTAKES[name]
    keys = {"questions": question(), **changes}
    if keys.get("examples") == "DATA":
        keys["examples"] = str(tmp_path / "data.jsonl")
    done = runs.tessera("evaluate", models()[2], "--few-shot", write_task(tmp_path, **keys))
    assert done.returncode == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_mistakes_on_the_command_line(models, tmp_path):
    task = write_task(tmp_path)
    for more, words in [(["--shots", 1], ["command line shots=1", "no examples"]), (["--shots", "x"], ["--shots"]),
                        (["--data", "a.h5"], ["--data", "--few-shot"]), (["--predictions", tmp_path / "none/p.jsonl"], ["none/p.jsonl"])]:
        done = runs.tessera("evaluate", models()[2], "--few-shot", task, *more)
        assert done.returncode == 2 and all(word in done.stderr for word in words), (more, done.stderr)
    done = runs.tessera("evaluate", models()[2], "--few-shot", tmp_path / "tsk.yaml")
    assert done.returncode == 2 and "did you mean" in done.stderr, done.stderr


def test_an_encoder_is_refused(tmp_path):
    torch.manual_seed(1)
    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, vocab_size=600)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "theirs")
    shutil.copy(runs.data("wordpiece") / "tokenizer.json", tmp_path / "theirs")
    runs.must(runs.tessera("import", tmp_path / "theirs", tmp_path / "ours"))
    done = runs.tessera("evaluate", tmp_path / "ours", "--few-shot", write_task(tmp_path))
    assert done.returncode == 2 and "causal" in done.stderr and "mlm" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_the_example_in_the_documentation_reads(models, tmp_path):
    task = yaml.safe_load((runs.ROOT / "docs/few-shot-sections.yaml").read_text())
    for key in ("data", "examples"):
        target = tmp_path / task[key]
        target.parent.mkdir(parents=True, exist_ok=True)
        write_lines(target, [{"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": i % 4} for i in range(6)])
    done = runs.must(runs.tessera("evaluate", models()[2], "--few-shot", runs.ROOT / "docs/few-shot-sections.yaml", cwd=tmp_path))
    assert f"6 questions, {task['shots']} shots" in done.stdout
