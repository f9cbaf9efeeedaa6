"""Prints the notes and "N passed, N failed" (and skipped) of a ctest report, and fails unless every test passed."""
import sys
import xml.etree.ElementTree as tree

try:
    suite = tree.parse(sys.argv[1]).getroot()
except (OSError, tree.ParseError) as error:
    print(f"no test report: {error}\n0 passed, 1 failed")
    sys.exit(1)
cases = suite.findall("testcase")
failed = sum(case.get("status") == "fail" for case in cases)
skipped = sum(case.get("status") in ("notrun", "disabled") for case in cases)
passed = len(cases) - failed - skipped
for case in cases:
    for line in case.findtext("system-out", "").splitlines():
        if line.startswith("note: "):
            print(line)
    if case.get("status") == "notrun":
        print(f"skipped: {case.get('name')}")
if not cases:
    print("no test ran")
print(f"{passed} passed, {failed or int(not cases)} failed" + (f", {skipped} skipped" if skipped else ""))
sys.exit(1 if failed or not passed else 0)
