"""What a user made of the answer before, by a classifier of user turns."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class UserFeedback(Unhosted):
    """Match when the last user turn is the kind of feedback that this signal is named after."""

    collection: ClassVar[str] = "user_feedbacks"
    type: Literal["user_feedback"] = "user_feedback"
    description: str = ""
