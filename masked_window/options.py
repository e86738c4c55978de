"""Options of the recipe for windows of words."""

from dataclasses import dataclass

from plateau.config import UserError
from plateau.data.masking import MaskShareOptions
from plateau.data.tokens import TokenOptions
from plateau.data.windows import WindowOptions
from plateau.models.window import WindowModelOptions
from plateau.models.window_loss import WindowLossOptions
from plateau.training.experiment import SpeechOptions


@dataclass(frozen=True)
class Options(SpeechOptions):
    """Words of which some are masked, and a window of audio.

    Args:
        tokens: see `TokenOptions`; words
        window: see `WindowOptions`
        window_model: see `WindowModelOptions`
        window_loss: see `WindowLossOptions`
        masking: see `MaskShareOptions`; of the words of a window
    """

    tokens: TokenOptions = TokenOptions("word")
    window: WindowOptions = WindowOptions()
    window_model: WindowModelOptions = WindowModelOptions()
    window_loss: WindowLossOptions = WindowLossOptions()
    masking: MaskShareOptions = MaskShareOptions(full=0.8)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens.kind != "word":
            raise UserError(
                f"tokens.kind is {self.tokens.kind}; windows are of words: set it to word"
            )
