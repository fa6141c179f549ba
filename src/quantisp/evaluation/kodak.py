"""The 24 Kodak photographs, recognised by their pixels."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["is_kodak"]

# SHA-256 of shape, type and samples of kodim01 to kodim24, as Picture.sha256 gives it.
KODAK = frozenset(
    {
        "069a661fbab9f1c73e6a4b32f135f43a5b7f38fe78d5a31c91b267eaa54f5627",
        "4e4a4d848a3c4f8de4c085ea9486cc1f56a4fa7cb5232c0f13dfc5baf7e78a28",
        "d8e58982e3a38291f5e757861a61cc9381381845efaadcc2a18a7fec1f535609",
        "ef9e091d44a9388ef4930da1cf04da97d5f4b02f5e70b46c60544747de4e5a40",
        "362260c8bcba412e9228fa057c6947e47354947ef15239caccc31917368e7753",
        "09884193eec2eec6632d0a73fa2dbdc11c653f9fff0db802d40585118ec8fa0e",
        "02a824b3135e73cfc5ac75a09f7b76a5e9dde75cbeed0260f9fe81c467b0d619",
        "541c3473eb1c3cb1690115988446deebcb8ce0dce0b8dc8d52c69dac8b9ac46f",
        "0f07316b687a0b0e5f7e7e7fac04352bdf6a75fb1bab4d7596b034e172f59129",
        "be49508d1b117862680665f7961db58102e48ab1df6a54849ba11b9d94e7f07c",
        "fbb462654ae4bb3b14564478a2d402c06cbb345f5e48811726b67074d2955099",
        "2cd5fb2466f9a01d8698395f540f517c6ef30166d8da45331a12ec7ec4a31878",
        "48a61100e54ee3ad395c7eefe6ddbcf12e10f56f6e459d30306bf821509edc4e",
        "30fa7802807c1f02acbc6f468c409180fa90d0b7b30546be4b4f5e61210bed85",
        "c02f67b392601897e7b81f10bd6797a5972f77ba44cd29dd95430cb09176937f",
        "da5bc5745d50010185fdfa41e2b91fe2722067e87d6e2569f525753e7cd23e3e",
        "9ba4f8648d9d9052154f412aba30608e1e301ae027094e3dfefcce487c98d384",
        "04b9ce4374da90cb3134a2ea7c43ad031c4d35f2fa9326c43ade15b9525181bb",
        "a28addb6cb0dce25b44124d37c64694f2b39eedc4e1fcfea3b1c526cf51b4791",
        "c3d3c5fceef8a051d5a459bf4a94e854870d8ce3c1bbaa4e92b3eaac467839fd",
        "3d1361fb2ed45b167671f629c630a03e3832d53460ecc3b640e998b2caa1ec88",
        "382c014cf79012f2cfeaa3647c636eb7e7cb0946ba92bb578ded3045fcd37a6c",
        "385c853343c1ade8559a4a7c34e07558672b43e68a7e8e7486c75dc589bf295f",
        "d1df6e8e8bc8f1c2619c3d8e8b0678dbd967690db904531078943a4d940f098c",
    }
)


def is_kodak(image_sha256s: Collection[str]) -> bool:
    """Whether these are the 24 photographs, each of them once, whatever their names."""
    return len(image_sha256s) == len(KODAK) and KODAK.issubset(image_sha256s)
