"""The report's HTML as a Jinja template; `render_report` fills it.

A picture is a link to itself: followed by click or Enter it becomes the page's
`:target`, which the style shows large; "Close" is a link to the picture's frame, so
that the reader comes back to where they were. Place in the flow: layer 9, part of
`report`.
"""

from minddiff_utils.reporting.report.style import STYLE

__all__ = ["PAGE"]

_MACROS = """
{%- macro show(picture) -%}
<a class="pic" id="{{ picture.id }}" href="#{{ picture.id }}" title="Show large">
{%- if picture.small %}<img class="small"{% else %}<img{% endif %}
 width="{{ picture.width }}" height="{{ picture.height }}" alt="{{ picture.alt }}"
 src="data:image/png;base64,{{ picture.data }}"></a>
{%- endmacro -%}

{%- macro show_table(table) -%}
{% if table.folded %}
<p class="caption" id="{{ table.id }}"><strong>{{ table.name }}.</strong>
 {{ table.caption }} ({{ label }})</p>
<details><summary>Show all {{ table.rows | length }} rows of {{ table.name }}</summary>
{% endif %}
<div class="scroll" role="region" tabindex="0" aria-labelledby="{{ table.id }}">
<table{% if table.ledger %} class="ledger"{% endif %}
{%- if table.folded %} aria-labelledby="{{ table.id }}"{% endif %}>
{% if not table.folded %}
<caption id="{{ table.id }}"><strong>{{ table.name }}.</strong>
 {{ table.caption }} ({{ label }})</caption>
{% endif %}
<thead><tr>
{% for column, numeric in table.columns %}
<th scope="col"{% if numeric %} class="number"{% endif %}>{{ column }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if table.ledger %} id="{{ table.id }}-r{{ loop.index }}"{% endif %}>
{% for cell in row %}
{% set head = table.ledger and loop.first %}
<{% if head %}th scope="row"{% else %}td{% endif %} data-column="{{ cell.column }}"
{%- if cell.css %} class="{{ cell.css }}"{% endif %}>
{%- if cell.glyph %}<span class="glyph" aria-hidden="true">{{ cell.glyph }} </span>
{%- endif -%}
{%- if cell.lead %}<strong>{{ cell.lead }}</strong>{% endif %}{{ cell.text }}
{%- if head %}</th>{% else %}</td>{% endif %}

{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if table.folded %}
</details>
{% endif %}
{%- endmacro -%}

{%- macro show_choices(gallery) -%}
<div class="choices">
{% if gallery.methods | length > 1 %}
<fieldset><legend>Rows to compare with “{{ gallery.methods[0] }}”</legend>
{% for method in gallery.methods %}
{% if not loop.first %}
<label><input type="checkbox" class="pick{{ loop.index0 }}" checked>
 {{ method }}</label>
{% endif %}
{% endfor %}
</fieldset>
{% endif %}
<fieldset><legend>View</legend>
<label><input type="radio" name="{{ gallery.id }}-view" class="overview" checked>
 one image per column</label>
<label><input type="radio" name="{{ gallery.id }}-view">
 side by side, one image per line</label>
</fieldset>
<p>Choose a picture to see it large beside “{{ gallery.methods[0] }}”. Close, or your
 browser's Back, brings you here again.</p>
</div>
{%- endmacro -%}

{%- macro show_step(images, place, k, words) -%}
{% if 0 <= place < images | length %}
<a class="{{ words | lower }}" href="#{{ images[place].pictures[k].id }}"
 aria-label="{{ words }} image"><span>{{ words }}</span></a>
{% endif %}
{%- endmacro -%}

{%- macro show_image(gallery, i) -%}
{% set image = gallery.images[i] %}
<li class="column zoom">
<p class="words">{{ image.words }}</p>
{% for picture in image.pictures %}
<div class="cell m{{ loop.index0 }}" id="{{ picture.id }}-at">
{{ show(picture) }}
<p class="method" aria-hidden="true">{{ gallery.methods[loop.index0] }}</p>
<p class="tools">
{{ show_step(gallery.images, i - 1, loop.index0, "Previous") -}}
{{ show_step(gallery.images, i + 1, loop.index0, "Next") -}}
<a class="close" href="#{{ picture.id }}-at"><span>Close</span></a>
</p>
</div>
{% endfor %}
</li>
{%- endmacro -%}

{%- macro show_gallery(gallery) -%}
<div class="gallery" role="group" aria-labelledby="{{ gallery.id }}"
 style="--methods: {{ gallery.methods | length }}">
<h3 id="{{ gallery.id }}">{{ gallery.name }}</h3>
<p class="caption">{{ gallery.caption }}</p>
{{ show_choices(gallery) }}
<div class="scroll">
<ul class="grid">
<li class="labels" aria-hidden="true">
{% for method in gallery.methods %}
<span class="m{{ loop.index0 }}">{{ method }}</span>
{% endfor %}
</li>
{% for image in gallery.images %}
{{ show_image(gallery, loop.index0) }}
{% endfor %}
</ul>
</div>
<p class="caption"><strong>How these images were chosen.</strong> {{ gallery.rule }}
 ({{ label }})</p>
</div>
{%- endmacro -%}

{%- macro show_figure(figure) -%}
<figure class="zoom" id="{{ figure.picture.id }}-at"
 style="--natural: {{ figure.picture.width }}px">
{{ show(figure.picture) }}
<p class="tools">
<a class="close" href="#{{ figure.picture.id }}-at"><span>Close</span></a></p>
<figcaption><strong>{{ figure.name }}.</strong> {{ figure.caption }}</figcaption>
</figure>
{%- endmacro -%}

{%- macro show_verdicts(groups) -%}
<section class="verdicts" aria-labelledby="verdicts">
<h2 id="verdicts">The claims, by verdict</h2>
<ul class="groups">
{% for group in groups %}
<li{% if group.css %} class="{{ group.css }}"{% endif %}>
<p><span class="count">{{ group.claims | length }}</span>
 <span class="glyph" aria-hidden="true">{{ group.glyph }}</span>
 <strong>{{ group.words }}</strong>
 {%- if group.in_silico %} <span class="mark">in silico</span>{% endif %}</p>
<ul>
{% for anchor, claim, statement in group.claims %}
<li><a href="#{{ anchor }}">{{ claim }}</a> <span>{{ statement }}</span></li>
{% endfor %}
</ul>
</li>
{% endfor %}
</ul>
</section>
{%- endmacro -%}

{%- macro show_section(section, number) -%}
<section id="{{ section.id }}" aria-labelledby="{{ section.id }}-title">
<h2 id="{{ section.id }}-title">{{ number }}. {{ section.title }}</h2>
{% for paragraph in section.paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
{% if section.definitions %}
<dl>
{% for name, value in section.definitions %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
{% endif %}
{% for table in section.tables %}
{{ show_table(table) }}
{% endfor %}
{% for gallery in section.galleries %}
{{ show_gallery(gallery) }}
{% endfor %}
{% for figure in section.figures %}
{{ show_figure(figure) }}
{% endfor %}
{% if section.links %}
<h3>Files</h3>
<ul class="links">
{% for text, href in section.links %}
<li><a href="{{ href }}">{{ text }}</a></li>
{% endfor %}
</ul>
{% endif %}
<p class="up"><a href="#contents">Back to the contents</a></p>
</section>
{%- endmacro -%}
"""

_HEAD = (
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>"""
    + STYLE
    + """
{% for k in range(n_methods) %}
.m{{ k }} { grid-row: {{ k + 2 }}; }
{% if k %}
.gallery:has(.pick{{ k }}:not(:checked)) .m{{ k }} { display: none; }
{% endif %}
{% endfor %}
</style>
</head>
"""
)

_BODY = """<body>
<a class="skip" href="#main">Skip to the main content</a>
<header>
<h1>{{ title }}</h1>
<p class="label">{{ label }}</p>
<div class="banner" role="note">
<p><strong>{{ banner_title }}.</strong></p>
<p>{{ banner_text }}</p>
</div>
</header>
<nav id="contents" aria-label="Contents">
<details><summary>Contents</summary>
<ol>
{% for section in sections %}
<li><a href="#{{ section.id }}">{{ section.title }}</a></li>
{% endfor %}
</ol>
</details>
</nav>
<main id="main" tabindex="-1">
{% if verdicts %}
{{ show_verdicts(verdicts) }}
{% endif %}
{% for paragraph in lead %}
<p>{{ paragraph }}</p>
{% endfor %}
{% for section in sections %}
{{ show_section(section, loop.index) }}
{% endfor %}
</main>
<footer>
{% if facts %}
<h2>What made this page</h2>
<dl>
{% for name, value in facts %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
{% endif %}
<p>{{ label }}</p>
</footer>
</body>
</html>
"""

#: The template. It needs title, label, lead, banner_title, banner_text, verdicts,
#: sections, facts and n_methods, the largest number of rows of a gallery.
PAGE = _MACROS + _HEAD + _BODY
