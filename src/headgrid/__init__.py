"""Figures of transformer attention, facetted by head.

    import headgrid

    capture = headgrid.load_capture("layer3.pt")
    headgrid.save(headgrid.heatmap(capture), "layer3_2d_heatmap.svg")

Captures in
    Capture              one layer's recorded frame attention, frozen and checked
    load_capture         read a capture file: .pt, .npz, .safetensors or .npy
    load_run             read every layer of a folder
    save_capture         write a capture file
    from_attentions      what a model of transformers returns -> a capture for each layer
    record               watch a running torch model: a capture for each layer
    record_runs          the same for many prompts, one folder each

Tables and numbers
    pair_table           every visible (query, key) pair as a row
    profile_table        every visible key of the last block's row as a row
    sink_scores          each head's sink score
    head_statistics      first, mid, last and sink of every head
    layer_statistics     diagonal and first-key mean of every layer
    measure_table        all measures of every head
    segment_table        what named parts of the axes give to each other
    budget_table         the mass that caches of key frames keep
    subtract             the difference of two captures, as a capture
    change_table         the largest changes between two captures
    survey, Survey       many captures together: layers, runs and sets
    head_roles           the role of every head in every run, by a rule
    role_votes           the role that most runs give to each head
    role_agreement       how far runs agree on roles
    compare_models       how heads differ between two models, or before and after
    role_changes         the roles of heads in two models
    resolve_color_range  a colour rule and captures -> the numbers of the scale

Charts (altair)
    heatmap              the query x key map of each head
    perhead              the last block's row of each head, and its sink score
    pick                 chosen heads side by side
    compare              two captures and their difference
    sheet                every head of every layer as a small map
    overview             layers x heads, one measure as colour and number
    trend                a measure over the layers
    budget_curves        the mass that caches keep, by their size
    role_map             layers x heads, a color for each role
    compare_heads        heads of two models: differences, a scatter, or roles

Files and pages out
    save                 a chart as .svg, .png, .pdf, .html or .json
    to_spec, to_json     the Vega-Lite specification of a chart
    fragment             a chart as HTML for a page of your own
    explore              a run as one page to look around in
    write_assets         the script that pages and fragments share

Options and errors
    FigureOptions        how a figure is drawn
    ColorRange           the values at the two ends of a colour scale
    HeadgridError        base of CaptureError, OptionError, OutputError, RecordError
                         and RenderError
    HeadgridWarning      something in the input is odd

A name is imported when it is first used, so that ``import headgrid`` costs nothing.
"""

import lazy_loader

from headgrid._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
