"""The networks as PyTorch modules, for export and as PyTorch's own entry in the race."""
import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval


class Bottleneck(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != 4 * width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNet50(nn.Module):
    """He et al. 2015, the variant with the stride in the 3x3 convolution, as torchvision's."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.pool = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1)
        blocks, channels = [], 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for i in range(count):
                blocks.append(Bottleneck(channels, width, stride if i == 0 else 1))
                channels = 4 * width
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(channels, 1000)

    def forward(self, image):
        x = self.pool(torch.relu(self.bn1(self.conv1(image))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(self.blocks(x), 1), 1))


def without_batch_norms(net):
    """Each in the convolution before it, as exporters have it: then the weights that are pruned are the ones that run."""
    for module in net.modules():
        for conv, norm in ("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"):
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return net


def random_resnet50():
    """Random weights whose activations keep their size, with scales of rows that vary as those of trained layers do."""
    torch.manual_seed(1)
    net = ResNet50().eval()
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            shape = [-1] + [1] * (module.weight.dim() - 1)
            module.weight.data *= torch.exp(.3 * torch.randn(module.weight.shape[0])).reshape(shape)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(.3, .9)
            module.bias.data.normal_(0, .1)
            module.running_mean.normal_(0, .1)
            module.running_var.uniform_(.8, 1.5)
    return without_batch_norms(net)


class Attention(nn.Module):
    """Bert's, with its names of weights."""

    def __init__(self, size, heads):
        super().__init__()
        self.heads, self.each = heads, size // heads
        self.self = nn.ModuleDict({name: nn.Linear(size, size) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(size, size), "LayerNorm": nn.LayerNorm(size, 1e-12)})

    def forward(self, x, mask):
        q, k, v = (self.self[n](x).unflatten(-1, (self.heads, self.each)).transpose(1, 2) for n in ("query", "key", "value"))
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.each ** -.5)
        return self.output["LayerNorm"](self.output["dense"](y.transpose(1, 2).flatten(2)) + x)


class BertLayer(nn.Module):
    def __init__(self, size, wide, heads):
        super().__init__()
        self.attention = Attention(size, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(size, wide)})
        self.output = nn.ModuleDict({"dense": nn.Linear(wide, size), "LayerNorm": nn.LayerNorm(size, 1e-12)})

    def forward(self, x, mask):
        x = self.attention(x, mask)
        y = nn.functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](y) + x)


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: token numbers to one vector of length 1 a sentence."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.ModuleDict({"word_embeddings": nn.Embedding(30522, 384), "position_embeddings": nn.Embedding(512, 384),
                                         "token_type_embeddings": nn.Embedding(2, 384), "LayerNorm": nn.LayerNorm(384, 1e-12)})
        self.register_buffer("positions", torch.arange(512).unsqueeze(0), persistent=False)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([BertLayer(384, 1536, 12) for _ in range(6)])})

    def forward(self, input_ids, attention_mask):
        e = self.embeddings
        x = e["word_embeddings"](input_ids) + e["position_embeddings"](self.positions[:, :input_ids.shape[1]])
        x = e["LayerNorm"](x + e["token_type_embeddings"].weight[0])
        kept = attention_mask.to(x.dtype)
        mask = ((1 - kept) * -1e4)[:, None, None, :]
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        kept = kept.unsqueeze(-1)
        mean = (x * kept).sum(1) / kept.sum(1)
        return mean / (mean * mean).sum(-1, keepdim=True).sqrt()


class DecoderLayer(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads, self.each = heads, size // heads
        self.ln_1, self.ln_2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x, keys, values, position):
        """With a position the new key and value are written into the caches there; without one, as ONNX has it, they are put behind them."""
        y = self.ln_1(x)
        q, k, v = (m(y).unflatten(-1, (self.heads, self.each)).transpose(1, 2) for m in (self.query, self.key, self.value))
        if position is None:
            keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
            y = nn.functional.scaled_dot_product_attention(q, keys, values, scale=self.each ** -.5)
        else:
            keys[:, :, position], values[:, :, position] = k[:, :, 0], v[:, :, 0]
            y = nn.functional.scaled_dot_product_attention(q, keys[:, :, :position + 1], values[:, :, :position + 1], scale=self.each ** -.5)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.ln_2(x)), approximate="tanh")), keys, values


class Decoder(nn.Module):
    """GPT-2 small's size and structure, one token a step; the output matrix is its own, so that it can be pruned."""
    LAYERS, SIZE, HEADS, WORDS, POSITIONS = 12, 768, 12, 50257, 1024

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(self.WORDS, self.SIZE), nn.Embedding(self.POSITIONS, self.SIZE)
        self.layers = nn.ModuleList(DecoderLayer(self.SIZE, self.HEADS) for _ in range(self.LAYERS))
        self.ln, self.head = nn.LayerNorm(self.SIZE), nn.Linear(self.SIZE, self.WORDS, bias=False)

    def forward(self, token, position, *caches, in_place=True):
        x, grown = self.words(token) + self.positions(position), []
        for i, layer in enumerate(self.layers):
            x, keys, values = layer(x, caches[2 * i], caches[2 * i + 1], int(position) if in_place else None)
            grown += [keys, values]
        logits = self.head(self.ln(x))
        return logits if in_place else (logits, *grown)


class Copying(nn.Module):
    """The decoder for export."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *inputs):
        return self.net(*inputs, in_place=False)


class RootMeanSquare(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


class LlamaLayer(nn.Module):
    """Llama's, as Hugging Face writes it: rotary places, keys and values shared by groups of heads, a gate."""

    def __init__(self, size, heads, shared, wide):
        super().__init__()
        self.heads, self.shared, self.each = heads, shared, size // heads
        self.norm_1, self.norm_2 = RootMeanSquare(size), RootMeanSquare(size)
        self.query, self.out = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)
        self.key, self.value = (nn.Linear(size, shared * self.each, bias=False) for _ in range(2))
        self.gate, self.up, self.down = nn.Linear(size, wide, bias=False), nn.Linear(size, wide, bias=False), nn.Linear(wide, size, bias=False)

    def forward(self, x, cos, sin, past):
        y = self.norm_1(x)
        q, k, v = (m(y).unflatten(-1, (-1, self.each)).transpose(1, 2) for m in (self.query, self.key, self.value))
        q, k = (t * cos + torch.cat((-t[..., self.each // 2:], t[..., :self.each // 2]), -1) * sin for t in (q, k))
        if past:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        repeated = [t[:, :, None].expand(-1, -1, self.heads // self.shared, -1, -1).flatten(1, 2) for t in (k, v)]
        y = nn.functional.scaled_dot_product_attention(q, *repeated, is_causal=not past)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = self.norm_2(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y)), k, v


class Llama(nn.Module):
    """A small one: many tokens at once, or, with the keys and values of those before, one behind the others. Logits of the last token."""
    LAYERS, SIZE, HEADS, SHARED, WIDE, WORDS, POSITIONS = 12, 768, 12, 4, 2048, 32000, 2048

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(self.WORDS, self.SIZE)
        self.layers = nn.ModuleList(LlamaLayer(self.SIZE, self.HEADS, self.SHARED, self.WIDE) for _ in range(self.LAYERS))
        self.norm, self.head = RootMeanSquare(self.SIZE), nn.Linear(self.SIZE, self.WORDS, bias=False)
        each = self.SIZE // self.HEADS
        angles = torch.outer(torch.arange(self.POSITIONS), 1e4 ** (-torch.arange(0, each, 2) / each)).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens, places, *past):
        x, cos, sin, grown = self.words(tokens), self.cos[places].unsqueeze(1), self.sin[places].unsqueeze(1), []
        for i, layer in enumerate(self.layers):
            x, *kept = layer(x, cos, sin, past[2 * i:2 * i + 2])
            grown += kept
        return (self.head(self.norm(x[:, -1])), *grown)


def random_decoder(kind=Decoder):
    torch.manual_seed(2)
    net = kind().eval()
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(0, .02)
        if isinstance(module, nn.Linear):
            module.weight.data *= torch.exp(.3 * torch.randn(module.weight.shape[0], 1))
    return net


NETWORKS = {"resnet50": lambda: without_batch_norms(ResNet50().eval()), "minilm": MiniLM, "decoder": Decoder, "llama": Llama}


def load(name, state):
    net = NETWORKS[name]().eval()
    net.load_state_dict(torch.load(state))
    return net

