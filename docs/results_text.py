"""The words of docs/results.md beside its figures: names, notes, and the claims of earlier versions."""

INTRODUCTION = """# Results

Every claim of the project about its captioners, with its effect, interval, seeds and command. `make docs` writes this
page from [the tables](../notebooks/results) and [benchmarks/results](../benchmarks/results); a test checks that no
figure on it was typed by hand.

**How to read it.** Every training of a table is repeated with the same seeds in each arm. A difference is the mean
over the seeds of arm minus base, with its 95 % interval by Student's t. p is corrected by Holm for all comparisons of
the table. A difference is called higher or lower only if p is below 0.05. Otherwise none is *shown*, which does not
mean that there is none: the interval says how large it may be."""
NOT_COUNTED = """Trainings of other sections are not counted here; each section says how many it has. The JSON beside
each table names its trainings, versions and machine."""
BOUNDS = """On another CPU the figures differ a little, by rounding. [Scores](scores.md) explains the measures. The
original's loss curve, from 10.78 to 10.33, is that of a doubled softmax: such a loss can only move between {lowest:.3f}
and {highest:.3f} (notebook 04)."""
PRETRAINED = (  # by the names in helpers/tiny/report.json
    "{clip_pictures:,} other pictures of this world: on their {gpt2_captions:,} captions and, for CLIP, on labels of "
    "their facts"
)
THE_WORLD = """The world is small and its captions are regular, so that every caption can be checked fact by fact. CLIP
and GPT-2 had been pretrained on {pretrained}. This world shows that the connection works and what breaks it. It does
not predict scores on photographs."""
MEASURES = {"correct": "validation captions with every fact right", "cider": "CIDEr of greedy validation captions"}
ARMS = {
    "double-softmax": "two softmaxes in the loss",
    "absolute-lr": "a learning rate of 9e-6",
    "mixed-images": "images that attend to each other in training",
    "double-wpe": "position embeddings added twice",
    "triple-wpe": "the same, and once more when writing",
    "bos-at-inference": "a token before the prefix, when writing only",
    "first-token-lost": "no loss on the first token",
    "end-never-learned": "no loss on the end of text",
    "padding-learned": "padding in the loss",
    "split-by-rows": "captions split by row, not by image",
}
TUNED = (
    "{arms} are each at their own best {what} of those tried, chosen by the same runs, so that their means are a "
    "little too good."
)
TUNED_ALONE = (
    "{arms} is at its own best {what} of those tried, chosen by the same runs, so that its mean is a little too good."
)
OTHERS_RATE = "The other arms are at the preset's learning rates; another rate may suit them better."
ONE_RATE = "All arms are at the preset's learning rates; another rate may suit an arm better."
RATES_MATTER = (  # questions that say so as long as no arm has a rate of its own
    "prefix length",
    "training GPT-2's embeddings",
    "patches",
    "photos: prefix length",
    "photos: freezing",
    "photos: pooled or patches",
)
SMALL_RATE = """The share of validation captions with every fact right, after so many steps at a constant learning rate
of 9e-6, the original's by its code; {seeds} seeds, {so}. With those at larger rates, which notebook 04 shows, the
{trainings} trainings took {minutes:.0f} minutes of CPU time."""
OVER = {  # whether there are more than two seeds
    True: "with 95 % intervals of the mean over trainings (Student's t)",
    False: "so there is no interval",
}
LOSS_TOO = ("photos: training photos",)
NOTES = {
    "patches": "Patches beside the pooled vector take 50 times the disk space (ViT-B/32).",
    "precision": "The arms compute in float32 (`fp32`) or in bfloat16 (`bf16`).",
    "defects of the original": "Each row adds one defect of the original's code to the right recipe. `split-by-rows` "
    "is judged by pictures that it trained on.",
    "training pictures": "All trainings take whole epochs, 372 to 384 steps. CLIP and GPT-2 had been pretrained on "
    "{pretrained}.\n\n![The share of right captions against the "
    "number of training pictures, for unseen pictures and for those trained on](learning_curve.png)",
    "photos: mapping module": "On the pooled embedding, with two layers.",
    "photos: image encoder": "The untrained encoder has the same layers with random weights.",
    "photos: training photos": "All trainings take whole epochs, 446 to 474 steps: 1,000 photos 6 % more than all.",
    "photos: pooled or patches": "Learned queries in two layers read the pooled vector, or the 81 cells of the last "
    "feature map, whose mean it is.",
    "photos: encoder from scratch": "On the pooled embedding. The other encoder is a small ViT that a contrastive loss "
    "taught on the same training photos and captions, with nothing pretrained.",
}
TEST_SCORES = {  # by the names in metrics.json
    "correct": "captions in which *every* fact is right, background included",
    "correct_shuffled": "the same with another picture's embedding",
    "cider": "CIDEr",
    "bleu_4": "BLEU-4",
    "picture_tells_per_caption": "what the picture tells, nats per caption",
    "picture_tells_per_token": "what the picture tells, nats per token",
    "wrong_picture_costs_per_token": "what a wrong picture costs, nats per token",
}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
LANGUAGE_MODEL = """The {told:.2f} nats per caption are against the language model alone. It predicts captions a little
worse than the best writer that there can be without a picture, by {more:.2f} nats per caption. That writer knows how
often each scene and each wording is drawn; against it the picture tells {best:.2f} nats."""
TELLS = """What the picture tells is what a writer without a picture needs for a reference caption, minus what the
captioner with it needs, both in nats. The better that writer is, the less is left to tell. With `--text-share 1` a
captioner learns a caption behind the mean embedding, without a picture, beside each one with its own. {pictures}
test pictures."""
OWN_PHOTOS = (  # the photos that are judged, the measure, and the title of its list
    ("own", "loss", "Loss of own photos"),
    ("own", "cider", "CIDEr of own photos"),
    ("flickr8k", "cider", "What is forgotten, CIDEr of Flickr8k's validation photos"),
)
BEST_BLIND = "what the picture tells against the best writer that there can be without a picture, nats per caption"
PHOTO_TELLS = {  # by the names in trainings-photo.json
    "picture_tells_per_caption": "what the photo tells, nats per caption",
    "picture_tells_per_token": "what the photo tells, nats per token",
    "wrong_picture_costs_per_caption": "what a wrong photo costs, nats per caption",
    "wrong_picture_costs_per_token": "what a wrong photo costs, nats per token",
    "cider": "CIDEr, greedy",
    "bleu_4": "BLEU-4, greedy",
}
PROBE = """A linear probe is fitted on {fitted:,} training pictures. The figure is the share of {read} validation
pictures of which it reads all {facts} facts right, one for each seed of the encoder, without an interval."""
PROBED = {  # by the names in probing.json
    "commonest value": "always the commonest value",
    "raw pixels": "raw pixels",
    "untrained": "an untrained encoder of the same shape",
    "photos": "the encoder of photos, which saw ImageNet",
    "captions": "the small CLIP's recipe, captions alone",
    "captions and facts": "the same with labels, as in `helpers/tiny`",
}
SURE = """{data}; {trainings} trainings. The expected calibration error is the mean distance between how sure the
captioner is and how often it is right. The last two columns are of what it is surer than 0.9 of, all trainings
together, with a 95 % interval over photos."""
CALIBRATED = {"next token": "the next token of a reference", "own words": "words of its own captions"}
FAMILIAR = {  # by the names in familiarity.json
    "tiny": "of the drawn world",
    "photo": "of photos",
    "full_size": "photos of Flickr30k at 500 x 375 pixels",
    "same at 224 pixels": "of the same photos at 224 pixels",
    "noise": "of noise",
}
UNLIKE = """How often is a picture called unlike those of the training? Only the image encoder and the training pictures
decide, so no training of a captioner is repeated. Of pictures like the training's, which were not trained on, every
call is a false alarm, and so it is of Flickr30k's photos. AUROC is the share of pairs of one picture of another kind
and one like the training's in which the first is the stranger one: 0.5 is chance. 95 % intervals over pictures
(Wilson)."""
JUDGES = """Does a CLIP flatter the captioner that was trained on its embeddings? Each judge says of each greedy caption
how often it fits the picture better than the references do: 0.5 means as often as not. *Own* judges have the image
encoder that the captioner sees by, *others* another one. {pictures} test pictures; captioners: {captioners}; judges:
{judges}; 95 % intervals over pictures. {holm} {taste}"""
HOLM_OF_JUDGES = {  # whether p is corrected
    True: "p is corrected by Holm for all comparisons of the table.",
    False: "The verdicts are not corrected for the number of comparisons.",
}
TASTE = {  # whether captioners of each encoder were judged
    True: "A judge has a taste in wording, whoever wrote the caption. In the rows *either* it cancels, because each "
    "judge is the own one once and another one once.",
    False: "With captioners of one encoder, a difference may be a judge's taste in wording as well.",
}
PEOPLE = {  # by the names in people.json
    "women_called_men": "a woman called a man",
    "men_called_women": "a man called a woman",
    "persons_given_a_gender": "a person of no agreed gender given one",
    "children_called_adults": "a child called an adult",
    "adults_called_children": "an adult called a child",
    "people_invented": "a person invented where no reference names one",
    "people_missed": "a person missed where most references name one",
    "objects_invented": "captions with an object that no reference names",
    "object_mentions_invented": "invented among all objects that are named",
    "objects_invented_by_references": "references with an object that the others do not name",
}
EARLIER = (  # claim of an earlier version, its question, the arm, the verdict that it needs
    ("a plain MLP learns faster than six encoder layers", "mapping module", "mlp", "higher"),
    ("at 7e-4 the encoder learns less than at 2e-4", "learning rate of the encoder", "0.0007", "lower"),
    ("a prefix of 1 is behind one of 4", "prefix length", "1", "lower"),
    ("with GPT-2 frozen nothing is right after an epoch", "freezing", "frozen", "lower"),
    ("LoRA is behind", "freezing", "lora", "lower"),
    ("training GPT-2's embeddings is worth something", "training GPT-2's embeddings", "False", "lower"),
    (
        "a token before the prefix, when writing only, costs captions",
        "defects of the original",
        "bos-at-inference",
        "lower",
    ),
    ("without a loss on the first token captions get worse", "defects of the original", "first-token-lost", "lower"),
    ("a split by rows makes a captioner look better", "defects of the original", "split-by-rows", "higher"),
    ("1,200 pictures teach less than all 2,378", "training pictures", "1200", "lower"),
    ("on photos LoRA is behind the training of all of GPT-2", "photos: freezing", "lora", "lower"),
    ("on photos an MLP is ahead of encoder layers", "photos: mapping module", "encoder", "lower"),
)
WITHDRAWN = """- “Training GPT-2's embeddings is worth the most”: this is not shown. Each choice is compared with
  its own base, and no two choices with each other.
- “The picture tells 2.59 nats per token” is withdrawn. It was measured against a wrong picture,
  which the captioner trusts: it is what trusting a wrong picture costs.
- “Tie”, “behind” and “ahead” are withdrawn. They were two standard errors of three seeds, by which nearly half of all
  tables with five equal arms call one of them behind."""
NOT_RUN = """## Not run: Flickr30k

The original asked about Flickr30k with the real CLIP and GPT-2. That has not been run here. It takes two commands,
and notebooks 06 and 07 take its parameters too:

```
clipxgpt train --preset small --images flickr30k_images --captions results.csv --splits dataset_flickr30k.json \\
  --out runs/small
clipxgpt evaluate -C runs/small --images flickr30k_images --captions results.csv --splits dataset_flickr30k.json \\
  --out runs/small/test
```

`evaluate` prints the scores that others published on Flickr30k beside its own."""
