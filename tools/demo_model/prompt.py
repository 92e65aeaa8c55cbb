"""The training side's view of the prompt: ChatML, `<img>` blocks, `Image-1:` and `Frame1:` prefixes (a test holds it
to the product's)."""

from tools.demo_model.conversation import Conversation, Shown

# The default of the template `internvl2_5`, which the product uses when a request has no system message.
SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
IMAGE = "<image>"


def question_text(conversation: Conversation) -> str:
    """The first round's user text with one `<image>` per picture."""
    question, count = conversation.rounds[0].question, len(conversation.scenes)
    if conversation.shown is Shown.FRAMES:
        return "".join(f"Frame{k}: {IMAGE}\n" for k in range(1, count + 1)) + question
    if count > 1:
        return "".join(f"Image-{k}: {IMAGE}\n" for k in range(1, count + 1)) + question
    return f"{IMAGE}\n{question}" if count else question
