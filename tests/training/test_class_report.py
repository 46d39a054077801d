"""Tables of single classes in the report of a classification."""

from hf_gpt.training.tasks.class_report import class_sections


def test_precision_recall_confusions_and_confident_mistakes():
    wanted = ["cat", "cat", "dog", "dog", "dog"]
    predicted = ["cat", "dog", "dog", "dog", "cat"]
    texts = ["a", "b <i>", "c", "d", "e"]
    classes, confusion, mistakes = class_sections(["cat", "dog"], wanted, predicted, [0.9, 0.6, 0.8, 0.7, 0.95], texts)
    # Of two predicted as cat one is; of two cats one is found.
    assert "<td>0.500</td><td>0.500</td><td>0.500</td><td>2</td>" in classes.body
    assert "<td>0.667</td><td>0.667</td><td>0.667</td><td>3</td>" in classes.body
    assert '<th scope="row">true cat</th><td>1</td><td>1</td>' in confusion.body
    assert '<th scope="row">true dog</th><td>1</td><td>2</td>' in confusion.body
    assert mistakes.body.index("0.950") < mistakes.body.index("0.600") and "b &lt;i&gt;" in mistakes.body
    assert "2 of 5 examples are mistaken" in mistakes.body


def test_many_classes_are_shown_by_the_pairs_that_are_confused():
    names = [f"class{number}" for number in range(20)]
    wanted, predicted = names + ["class1"] * 3, names + ["class2"] * 3
    _, confusion, mistakes = class_sections(names, wanted, predicted, [0.5] * 23, [""] * 23)
    assert '<th scope="row">class1</th><td>class2</td><td>3</td>' in confusion.body and mistakes.id == "mistakes"


def test_without_mistakes_there_is_no_section_of_them():
    found = class_sections(["a", "b"], ["a", "b"], ["a", "b"], [0.9, 0.8], ["x", "y"])
    assert [section.id for section in found] == ["classes", "confusion"]
