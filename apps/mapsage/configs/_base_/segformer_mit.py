"""SegFormer with the MiT-B2 backbone and eight classes; smaller jobs override the sizes.

SegFormer 网络：MiT-B2 主干，八个类别；小任务可覆盖这些尺寸。
"""

model = dict(
    type="EncoderDecoder",
    # Pictures become (RGB - mean) / std; ImageNet's numbers, in grey levels. 归一化：ImageNet 均值与标准差
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type="MixVisionTransformer",
        embed_dims=64,
        num_layers=[3, 4, 6, 3],
        num_heads=[1, 2, 5, 8],
        drop_path_rate=0.1,
        with_cp=False,  # True: less memory, same numbers, slower. 显存不足时改为 True
    ),
    decode_head=dict(
        type="SegformerHead",
        in_channels=[64, 128, 320, 512],  # embed_dims * num_heads
        channels=256,
        num_classes=8,
        dropout_ratio=0.1,
        norm_cfg=dict(type="BN", requires_grad=True),
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
    test_cfg=dict(mode="whole"),
)
