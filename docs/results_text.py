"""The words of docs/results.md beside its figures: names, notes, and the claims of earlier versions."""

INTRODUCTION = """# Results

Every claim of the project about its captioners, with its effect, interval, seeds and command. `make docs` writes this
page from [the tables](../notebooks/results) and [benchmarks/results](../benchmarks/results); a test holds that no
figure on it was typed by hand.

**How to read it.** Every training of a table is repeated with the same seeds in each arm. A difference is the mean
over the seeds of arm minus base, with its 95 % interval by Student's t. p is corrected by Holm for all comparisons of
the table. Only if it is below 0.05, a difference is called higher or lower. Otherwise none is *shown*, which does not
mean that there is none: the interval says how large it may be."""
THE_WORLD = """The world is small and its captions are regular, so that every caption can be checked fact by fact. Its
CLIP and its GPT-2 were pretrained on such pictures and captions. It shows that the connection works and what breaks
it. It does not predict scores on photographs."""
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
TUNED = "at its own best learning rate of those tried, chosen by the same runs, so that its mean is a little too good."
NOTES = {
    "mapping module": f"Each design is {TUNED}",
    "freezing": f"`frozen` and `lora` are each {TUNED} The others are at the preset's.",
    "patches": "Patches beside the pooled vector take 50 times the disk space (ViT-B/32).",
    "defects of the original": "Each row adds one defect of the original's code to the right recipe. `split-by-rows` "
    "is judged by pictures that it trained on.",
    "training pictures": "All trainings take the same number of steps.\n\n![The share of right captions against the "
    "number of training pictures, for unseen pictures and for those trained on](learning_curve.png)",
    "photos: mapping module": f"On the pooled embedding, with two layers. Each design is {TUNED}",
    "photos: image encoder": "The untrained encoder has the same layers with random weights.",
    "photos: training photos": "All trainings take the same number of steps.",
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
    ("a prefix of 1 is far behind one of 4", "prefix length", "1", "lower"),
    ("with GPT-2 frozen nothing is right after an epoch", "freezing", "frozen", "lower"),
    ("LoRA is behind", "freezing", "lora", "lower"),
    ("training GPT-2's embeddings is worth the most", "training GPT-2's embeddings", "False", "lower"),
    (
        "a token before the prefix, when writing only, costs captions",
        "defects of the original",
        "bos-at-inference",
        "lower",
    ),
    ("without a loss on the first token captions get worse", "defects of the original", "first-token-lost", "lower"),
    ("a split by rows makes a captioner look better", "defects of the original", "split-by-rows", "higher"),
    ("1,200 pictures teach less than all 2,378", "training pictures", "1200", "lower"),
)
DISSOLVED = """- “The picture tells 2.59 nats per token” dissolves. It was measured against a wrong picture,
  which the captioner trusts: it is what trusting a wrong picture costs.
- “Tie”, “behind” and “ahead” dissolve. They were two standard errors of three seeds, by which nearly half of all
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
