"""CLIPxGPT Captioner: a frozen CLIP and a partially frozen GPT-2, connected by a small mapping module.

The road, top to bottom; imports point down only, and importing does nothing visible.

    cli, flags                the commands and their flags
    ablation, series          one thing changed over several seeds; the notebooks, one after the other
    trial, defects            one run of an ablation; the original's defects, to measure what each costs
    verdict                   what a table of several seeds says; a tie is called a tie
    journey, report           pictures, embeddings, captioner in three calls; a run as one HTML file
    explorer, app             the widget (candidates, comparison, markup); the same, served as a page
    launching, sessions       training on every card from a notebook; from one Kaggle session to the next
    training, preparation     one loop, and what it needs before its first step
    learner, plan, logbook    one optimizer step; what a run will take, rehearsed; how it goes, written down
    evaluation, probing       does it see? what can be read from an embedding?
    insight                   what a prefix reads as, where each word looks, how sure it is
    scoring, yardsticks       a captions file against references; what others reach on Flickr30k
    controls, information     captions without the picture; what the picture tells, in nats a token
    metrics, clipscore        COCO's scores and CLIPScore (tokenizing, meteor, java, variety, intervals, score_figures)
    writer                    captioner + tokenizer + image processor: pictures in, captions out
    runs, checkpoint, meter   what a training leaves behind, how it goes on, how fast it is
    likelihood, packing       the one loss, on captions laid end to end without padding
    batches                   captions tokenised once, every batch a function of the step
    captioner                 embedding -> prefix -> GPT-2 -> loss, generate
    mapping, freezing, lora   the mapping modules; which GPT-2 tensors train; adapters beside them
    guidance                  decoding away from what the mean embedding would say
    embeddings, shards        the cache: one CLIP embedding an image, pooled or with its patches
    flickr, karpathy, pictures  captions files, split by image; every kind of picture file
    pretrained                a CLIP and a GPT-2 from the hub, a folder, or the pair in helpers/tiny
    pretraining               such a pair, trained small from scratch (pretraining_data, small_clip, small_gpt2)
    gallery, neighbours       which captions to look at, failures by kind; is a caption copied?
    scenes, wording           the drawn world, and its captions read back into facts
    config, schedule, accelerator (allocator), inputs, stopping, plotting, looking, locks, atomic, errors

Shapes: B batch, P prefix length, T caption tokens, D CLIP's width, S patches and the class token, E GPT-2's width,
V vocabulary, N images.
"""
