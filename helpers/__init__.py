"""CLIPxGPT Captioner: a frozen CLIP and a partially frozen GPT-2, connected by a small mapping module.

The road, top to bottom; imports point down only, and importing does nothing visible.

    cli, __main__         the commands
    series                the notebooks, one after the other
    explorer, journey     the widget; what a notebook needs from an earlier one, reused or made
    training, evaluation  one loop; does it see?
    writer                captioner + tokenizer + image processor: pictures in, captions out
    runs, checkpoint      what a training leaves behind, and how it goes on
    batches               captions tokenised once, every batch a function of the step
    captioner             embedding -> prefix -> GPT-2 -> loss, generate
    mapping, freezing     the mapping modules; which GPT-2 tensors train
    embeddings            the cache: one CLIP embedding an image
    flickr, pictures      captions files, split by image; every kind of picture file
    pretrained            a CLIP and a GPT-2 from the hub, a folder, or the pair in helpers/tiny
    pretraining           such a pair, trained small from scratch
    scenes, wording       the drawn world, and its captions
    config, schedule, accelerator, stopping, meter, plotting, atomic, errors

Shapes: B batch, P prefix length, T caption tokens, D CLIP's width, E GPT-2's width, V vocabulary, N images.
"""
