"""The figures of the report: name, number and caption, said once.

F1 to F9 are the figures that the paper has; S1 and on are further ones. Notebooks
write the number behind their own ("**Figure 2 (F6).**"), which the tests check. A
caption says what is drawn, never what came out.
"""

from dataclasses import dataclass

__all__ = ["FIGURES", "Caption"]


@dataclass(frozen=True)
class Caption:
    """A figure's number and what it shows.

    Attributes
    ----------
    number : str
        "F1" to "F9", or "S1" and on.
    words : str
        `{subject}` stands for the subject whose figure is in the report.
    each_subject : bool
        Whether each has its own, in files `<name>_subj01.png` and so on.
    """

    number: str
    words: str
    each_subject: bool = False

    def file_name(self, name: str, subject: int) -> str:
        """Return the name of the figure's file, without its ending."""
        return f"{name}_subj{subject:02d}" if self.each_subject else name


#: Name of the file -> number and caption.
FIGURES: dict[str, Caption] = {
    "method": Caption(
        "F1",
        "The method on one test image of subject {subject}: the median one, by the"
        " rule on the figure.",
    ),
    "gallery": Caption("F2", "Compared systems, subject {subject}."),
    "gallery_subjects": Caption(
        "F3", "The same test images from every subject's brain, both stages."
    ),
    "gallery_ablation": Caption(
        "F4",
        "Every combination of c, z and Z_CLIP as images, subject {subject}, made by"
        " guided sampling.",
    ),
    "losses": Caption(
        "F5", "Structural loss along stage 2, subject {subject}.", each_subject=True
    ),
    "k_quality": Caption(
        "F6",
        "Accuracy, identification and final quality against k, the share of CLIP"
        " features that is kept.",
    ),
    "cortex_flat": Caption(
        "F7", "Decoder weights on the flattened cortex, subject {subject}."
    ),
    "histograms": Caption(
        "F8", "Decoding accuracy of all targets, subject {subject}.", each_subject=True
    ),
    "failures": Caption(
        "F9", "Meaning without structure and the reverse, subject {subject}."
    ),
    "differences": Caption(
        "S1",
        "Paired differences on the same images: what is added to stage 1, and stage 2"
        " against controls and other systems.",
    ),
    "stage2_gain": Caption("S2", "Stage 2 minus stage 1 in each subject."),
    "comparison": Caption(
        "S3", "Methods and compared systems, with chance level and ceiling."
    ),
    "controls": Caption("S4", "Parts, floors and ceilings, as in the figure before."),
    "subjects": Caption("S5", "Stage 1 and stage 2 in each subject."),
    "ablation": Caption(
        "S6", "What each combination of c, z and Z_CLIP lacks beside all three."
    ),
    "trajectory": Caption(
        "S7", "Images along stage 2, subject {subject}.", each_subject=True
    ),
    "quality_vs_accuracy": Caption(
        "S8", "How well an image was read, and how well it was reconstructed."
    ),
    "cortex_inflated": Caption(
        "S9", "The weights of F7 on the inflated surface, subject {subject}."
    ),
    "accuracy": Caption(
        "S10",
        "Decoding accuracy by feature and set of areas, with chance and ceiling,"
        " subject {subject}.",
        each_subject=True,
    ),
    "weights": Caption(
        "S11", "Decoder weights by area, subject {subject}.", each_subject=True
    ),
    "naming": Caption("S12", "Whether the object can be named, by method."),
    "study_pareto": Caption("S13", "Engines of stage 2: quality against cost."),
    "study_against_stage1": Caption(
        "S14", "Engines of stage 2: difference from stage 1 alone."
    ),
    "study_against_best_of_n": Caption(
        "S15", "Engines of stage 2: difference from the best of N draws."
    ),
    "study_against_paper": Caption(
        "S16", "Engines of stage 2: difference from Algorithm 1 as printed."
    ),
}
