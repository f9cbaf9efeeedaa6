"""Debian's (or Ubuntu's) package lists as data, for the fetch-… programs beside this file.

Uses apt-get with a private configuration and lists folder: needs no root and changes nothing of the system.
"""
import os
import re
import shutil
import subprocess
import sys

APT_HELPER = "/usr/lib/apt/apt-helper"
BULLET = re.compile(r"[*+•o-] +")


def fail(message):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {message}")


def run(*command, **environment):
    return subprocess.run(command, capture_output=True, text=True, errors="replace",
                          env={**os.environ, "LC_ALL": "C.UTF-8", **environment})


def last_lines(process):
    """Why a command failed, short enough for a message."""
    return "; ".join((process.stderr or process.stdout).strip().splitlines()[-3:])


def require_apt(elsewhere):
    if not shutil.which("apt-get") or not os.path.exists(APT_HELPER):
        fail(f"needs apt-get and apt-helper (Debian, Ubuntu); elsewhere {elsewhere}")


def write_configuration(folder, languages, targets=("Translations",)):
    """An apt configuration that fetches only these index targets and languages, into `folder`."""
    for name in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(folder, name))
    known = re.findall(r"^Acquire::IndexTargets::(deb(?:-src)?)::([^:]+)::MetaKey ",
                       run("apt-config", "dump", "Acquire::IndexTargets").stdout, re.M)
    lines = [f'Dir::State::lists "{folder}/lists";', f'Dir::Cache "{folder}/cache";',
             'Dir::Cache::pkgcache "";', 'Dir::Cache::srcpkgcache "";', 'Acquire::Retries "3";',
             # Without this apt drops to a user that may not be allowed into the private folder.
             'APT::Sandbox::User "";', 'APT::Update::Post-Invoke "";',
             "#clear APT::Update::Post-Invoke;", "#clear APT::Update::Post-Invoke-Success;", "#clear Acquire::Languages;",
             "Acquire::Languages {" + "".join(f'"{language}";' for language in languages) + "};"]
    lines += [f'Acquire::IndexTargets::{kind}::{name}::DefaultEnabled "false";'
              for kind, name in sorted(set(known)) if name not in targets]
    path = os.path.join(folder, "apt.conf")
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def index_texts(configuration, created_by, language=""):
    """The text of every fetched index file of one target (and language)."""
    fields = "$(CREATED_BY) $(LANGUAGE) $(FILENAME)" if language else "$(CREATED_BY) $(FILENAME)"
    listed = run("apt-get", "-c", configuration, "indextargets", "--format", fields)
    start = f"{created_by} {language} " if language else f"{created_by} "
    for line in sorted(listed.stdout.splitlines()):
        path = line[len(start):]
        if line.startswith(start) and os.path.exists(path):
            yield run(APT_HELPER, "-c", configuration, "cat-file", path).stdout


def paragraphs(lines):
    """Synopsis and long description as paragraphs: wrapped lines joined, list items and verbatim lines on their own."""
    result, open_item = [lines[0].strip()], False
    fresh = True
    for line in lines[1:]:
        text = line.strip()
        if text in (".", ""):
            fresh, open_item = True, False
            continue
        bullet = BULLET.match(text)
        verbatim = line.startswith("  ") and not open_item
        if fresh or bullet or verbatim:
            result.append(re.sub(BULLET, "- ", text, count=1) if bullet else text)
        else:
            result[-1] += " " + text
        open_item = bool(bullet) or (open_item and not fresh)
        fresh = verbatim and not bullet
    return [re.sub(r"\s+", " ", paragraph) for paragraph in result if re.search(r"\w", paragraph)]


def descriptions(configuration, language):
    """Package name -> paragraphs, from the fetched index files of one language."""
    found = {}
    for text in index_texts(configuration, "Translations", language):
        for stanza in text.split("\n\n"):
            name = re.match(r"Package: (\S+)", stanza)
            body = re.search(rf"^Description-{language}: ?(.*(?:\n .*)*)", stanza, re.M)
            if name and body:
                found.setdefault(name[1], paragraphs(body[1].split("\n")))
    return found


def unpack_packages(configuration, folder, names):
    """Downloads packages with what they need and this machine lacks, and unpacks all into `folder` (nothing is installed)."""
    download = run("apt-get", "-c", configuration, "-o", "Debug::NoLocking=true", "install", "-y", "-q", "--reinstall",
                   "--download-only", "--no-install-recommends", *names)
    archives = os.path.join(os.path.dirname(configuration), "cache/archives")
    if download.returncode:
        fail(f"apt-get could not download {', '.join(names)}: {last_lines(download)}")
    for name in sorted(os.listdir(archives)):
        if name.endswith(".deb"):
            unpacked = run("dpkg", "-x", os.path.join(archives, name), folder)
            if unpacked.returncode:
                fail(f"dpkg could not unpack {name}: {last_lines(unpacked)}")
