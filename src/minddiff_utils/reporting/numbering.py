"""The figures of the report: name, number and caption, said once.

F1 to F9 are the figures that the paper has; S1 and on are further ones. Notebooks
write the number behind their own ("**Figure 2 (F6).**"), which the tests check. A
caption says what is drawn, never what came out.
"""

from dataclasses import dataclass

__all__ = ["FIGURES", "Caption"]


@dataclass(frozen=True)
class Caption:
    """A figure's number, "F1" to "F9" or "S1" and on, and what it shows.

    `{subject}` in `words` stands for the subject whose figure is in the report;
    `each_subject`: each has its own, in files `<name>_subj01.png` and so on.
    """

    number: str
    words: str
    each_subject: bool = False

    def file_name(self, name: str, subject: int) -> str:
        """Return the name of the figure's file, without its ending."""
        return f"{name}_subj{subject:02d}" if self.each_subject else name


#: The paper's figures by the names of their files.
_PAPER = {
    "method": (
        "The method on one test image of subject {subject}: the median one, by the"
        " rule on the figure."
    ),
    "gallery": "Compared systems, subject {subject}.",
    "gallery_subjects": "The same test images from every subject's brain, both stages.",
    "gallery_ablation": (
        "Every combination of c, z and Z_CLIP as images, subject {subject}, made by"
        " steered sampling."
    ),
    "losses": "Structural loss along stage 2, subject {subject}.",
    "k_quality": (
        "Accuracy, identification and final quality against k, the share of CLIP"
        " features that is kept."
    ),
    "cortex_flat": "Decoder weights on the flattened cortex, subject {subject}.",
    "histograms": "Decoding accuracy of all targets, subject {subject}.",
    "failures": "Meaning without structure and the reverse, subject {subject}.",
}
#: Further ones.
_FURTHER = {
    "differences": (
        "Paired differences on the same images: what is added to stage 1, and stage 2"
        " against controls and other systems."
    ),
    "stage2_gain": "Stage 2 minus stage 1 in each subject.",
    "comparison": "Methods and compared systems, with chance level and ceiling.",
    "controls": "Parts, floors and ceilings, as in the figure before.",
    "subjects": "Stage 1 and stage 2 in each subject.",
    "ablation": "What each combination of c, z and Z_CLIP lacks beside all three.",
    "trajectory": "Images along stage 2, subject {subject}.",
    "quality_vs_accuracy": (
        "How well an image was read, and how well it was reconstructed."
    ),
    "cortex_inflated": "The weights of F7 on the inflated surface, subject {subject}.",
    "accuracy": (
        "Decoding accuracy by feature and set of areas, with chance and ceiling,"
        " subject {subject}."
    ),
    "weights": "Decoder weights by area, subject {subject}.",
    "naming": "Whether the object can be named, by method.",
    "study_pareto": "Engines of stage 2: quality against cost.",
    "study_against_stage1": "Engines of stage 2: difference from stage 1 alone.",
    "study_against_best_of_n": (
        "Engines of stage 2: difference from the best of N draws."
    ),
    "study_against_paper": (
        "Engines of stage 2: difference from Algorithm 1 as printed."
    ),
    "leakage": (
        "What rows that know no brain, or less of it, score above a generator that is"
        " told nothing."
    ),
    "factors": (
        "What accuracy depends on (voxels, signal, how much data) and what it is worth."
    ),
    "video": "How fast a scene may move for its frames to be put in order, and a clip.",
}
#: Each subject has its own.
_EACH_SUBJECT = ("losses", "histograms", "trajectory", "accuracy", "weights")

#: Name of the file -> number and caption.
FIGURES: dict[str, Caption] = {
    name: Caption(f"{letter}{number}", words, name in _EACH_SUBJECT)
    for letter, captions in (("F", _PAPER), ("S", _FURTHER))
    for number, (name, words) in enumerate(captions.items(), 1)
}
