"""Renders conversations by chat templates with transformers, and writes golden.json.

    pip install transformers jinja2
    python generate.py

The templates are those that the models' tokenizer_config.json files have on the Hugging Face Hub; `features` is
made up of what templates there use besides.
"""

import json
import pathlib

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent
TEMPLATES = {
    # HuggingFaceTB/SmolLM2-135M-Instruct
    "smollm2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    # meta-llama/Llama-2-7b-chat-hf
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    # TinyLlama/TinyLlama-1.1B-Chat-v1.0
    "tinyllama": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    # meta-llama/Meta-Llama-3-8B-Instruct
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "features": """{%- set ns = namespace(count=0) -%}
{%- macro shout(text) -%}{{ text.upper() }}!{%- endmacro -%}
{%- for message in messages if message.content is defined %}
    {%- if message['content'] is string and not message.content.startswith('skip') %}
        {%- set ns.count = ns.count + 1 %}
        {{- loop.index ~ '/' ~ messages | length }}: {{ message.role.title() }} {{ message | tojson }}
        {{ {'a': [1, 2.5, none, true], 'é<': "q'&"} | tojson(indent=2) }}
        {{ message['content'].split(' ')[0] | upper }} {{ shout(message.role) }}
        {%- if loop.index >= 3 %}{% break %}{% endif %}
    {%- else %}{% continue %}{% endif %}
{%- endfor %}
{{ ns.count }} {{ bos_token or 'none' }} {{ missing is defined }} {{ missing }} {{ tools is none }}
{%- if strftime_now is defined %} {{ strftime_now('%d') | length }}{% endif %} {{ messages[-1].content[::-1] | trim }}
{%- for key, value in messages[0].items() %} {{ key }}={{ value | replace('\\n', ' ') }}{% endfor %}
{{ ['x', 'y'] | join(', ') }} {{ (messages | map(attribute='role') | list)[:2] }} {{ "%s" % 'z' if false else 'kept' }}
""",
}
USER = {"role": "user", "content": "Hello, who are you?"}
ASSISTANT = {"role": "assistant", "content": "I am a model."}
SYSTEM = {"role": "system", "content": "Be brief.\nAnswer in French."}
SPECIAL = {"role": "user", "content": "  a <|im_end|> </s> \"q\" 'p' {{ x }} {% y %} <b>&amp;</b> é 語 😀\n\n\ttab  \n"}
CONVERSATIONS = [
    [USER], [SYSTEM, USER], [USER, ASSISTANT, SPECIAL], [SYSTEM, SPECIAL, ASSISTANT, USER, ASSISTANT],
    [USER, USER], [{"role": "tool", "content": ""}], [SYSTEM], [ASSISTANT, SPECIAL, {"role": "user", "content": "skip me"}],
]

cases = []
for name, template in TEMPLATES.items():
    begin, end = ("<|begin_of_text|>", "<|eot_id|>") if name == "llama3" else ("<s>", "</s>")
    for messages in CONVERSATIONS:
        for add_generation_prompt in (False, True):
            case = {"template": name, "begin": begin, "end": end, "messages": messages,
                    "add_generation_prompt": add_generation_prompt}
            try:
                rendered, _ = render_jinja_template(
                    conversations=[messages], chat_template=template, add_generation_prompt=add_generation_prompt,
                    bos_token=begin, eos_token=end)
                case["rendered"] = rendered[0]
            except jinja2.TemplateError as error:
                case["error"] = str(error)
            cases.append(case)
golden = {"templates": TEMPLATES, "cases": cases}
(HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
print(len(cases), sum("error" in case for case in cases))
