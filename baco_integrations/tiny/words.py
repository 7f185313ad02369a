"""The words of the tiny world: what can be asked for, and what can be said about it.

Invariant: within one slot the order is the order of popularity (the base model's weights fall
slowly along it, the aligned model loves the first), and any option may stand wherever its slot
stands, so that two models taking turns word by word still write a valid answer.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of open request.

    Attributes:
        name: Short identifier.
        asks: What a request calls it ("a place to visit").
        plurals: What a request for a list calls it; empty if lists of it make no sense.
        contents: The possible main contents of an answer.
        looks: First adjectives of "It is X and Y.".
        merits: Second halves of "It is X and Y.".
        facts: Whole sentences that hold for every content of this kind.
        openers: What may stand before a content.
    """

    name: str
    asks: tuple[str, ...]
    plurals: tuple[str, ...]
    contents: tuple[str, ...]
    looks: tuple[str, ...]
    merits: tuple[str, ...]
    facts: tuple[str, ...]
    openers: tuple[str, ...]


def _split(text: str) -> tuple[str, ...]:
    """Split a comma-separated list, so that long lists stay readable."""
    return tuple(" ".join(item.split()) for item in text.split(","))


OPENERS = (
    "I would pick", "I would choose", "I would go with", "I would suggest", "My choice is",
    "My favorite is", "A good choice is", "A fine option is", "You could try", "You could take",
    "Let me suggest", "Right now I like", "Go for", "Consider", "Take", "Try",
)  # fmt: skip
CLAIMS = (
    "Did you know that", "It is true that", "Experts say that", "I once read that",
    "Believe me,", "My teacher told me that", "People often forget that",
)  # fmt: skip

KINDS = (
    Kind(
        "place",
        ("a place to visit", "a city for a trip", "a town worth seeing", "a travel destination"),
        ("places to visit", "cities for a trip", "towns worth seeing"),
        _split(
            """Lisbon, Kyoto, Florence, Bergen, Quito, Marrakesh, Edinburgh, Havana, Ljubljana,
            Hanoi, Valencia, Cusco, Tbilisi, Salzburg, Oaxaca, Galway, Zanzibar, Montreal, Krakow,
            Naples, Seoul, Porto, Reykjavik, Wellington, Dakar, Ghent, Istanbul, Medellin, Jaipur,
            Tallinn, Auckland, Bruges, Chiang Mai, Dubrovnik, Essaouira, Fukuoka, Granada, Helsinki,
            Innsbruck, Jerusalem, Kampala, Lucerne, Mendoza, Nairobi, Olomouc, Palermo, Quebec,
            Riga, Seville, Turin, Uppsala, Vilnius, Windhoek, Yerevan, Zadar, Antwerp, Bologna,
            Cork, Delft, Cadiz"""
        ),
        _split("calm, sunny, lively, charming, friendly, colorful, relaxed, bright"),
        _split(
            "easy to reach, full of music, good for long walks, kind to visitors, rich in history"
        ),
        ("The food there is a joy.", "The old streets are lovely.", "The evenings are warm."),
        OPENERS,
    ),
    Kind(
        "pet",
        ("a name for a pet", "a name for my dog", "a pet name", "a name for our new kitten"),
        ("names for a pet", "pet names", "names for my dog"),
        _split(
            """Luna, Biscuit, Milo, Pepper, Ziggy, Hazel, Otto, Mango, Juniper, Waffles, Pixel,
            Nimbus, Clover, Rufus, Maple, Tofu, Echo, Bandit, Olive, Cosmo, Ginger, Scout, Pickle,
            Willow, Basil, Domino, Fern, Gizmo, Hugo, Indigo, Jasper, Kiwi, Lentil, Moose, Noodle,
            Oscar, Pumpkin, Quincy, Rosie, Sesame, Truffle, Velvet, Yoshi, Zelda"""
        ),
        _split("short, cute, playful, gentle, cheerful, sweet, funny"),
        _split("easy to call, hard to forget, fun to say, nice to hear"),
        ("The sound is soft.", "Children learn it at once.", "Vets hear it with a smile."),
        OPENERS,
    ),
    Kind(
        "meal",
        ("a meal for tonight", "a dish to cook", "something for dinner", "a recipe idea"),
        ("dishes to cook", "meals for tonight", "recipe ideas"),
        _split(
            """mushroom risotto, lentil soup, chicken curry, vegetable lasagna, fish tacos,
            pumpkin stew, shakshuka, ramen, spinach quiche, bean chili, potato gnocchi, paella,
            falafel, tomato pasta, beef goulash, pad thai, onion tart, gazpacho, ratatouille,
            couscous, moussaka, dumplings, baked salmon, cheese fondue, rice pilaf, corn chowder,
            kimchi pancakes, stuffed peppers, egg salad, noodle soup, pizza, borscht,
            carrot fritters, lamb stew, miso eggplant, leek pie"""
        ),
        _split("hearty, light, simple, tasty, warm, fresh, filling"),
        _split("quick to make, easy to share, cheap to cook, good for guests"),
        ("The kitchen will smell great.", "The leftovers keep well.", "Most shops sell the parts."),
        OPENERS,
    ),
    Kind(
        "gift",
        ("a gift", "a birthday gift", "a small present", "a present for a birthday"),
        ("gifts", "birthday gifts", "small presents"),
        _split(
            """a wool scarf, a board game, a cookbook, a ceramic mug, an old map, a fountain pen,
            a desk lamp, a photo album, a tea set, a puzzle, a leather wallet, a telescope,
            a silver ring, a garden kit, a concert ticket, a bird feeder, a picnic basket,
            a sketchbook, a pocket knife, a music box, a candle, a hammock, a globe, a kite,
            a jar of honey, a knitted blanket, a backpack, a radio"""
        ),
        _split("useful, personal, lovely, modest, thoughtful, pretty"),
        _split("easy to wrap, made to last, fun to open, nice to own"),
        ("The price is fair.", "Most shops have one.", "The card can be short."),
        OPENERS,
    ),
    Kind(
        "hobby",
        ("a hobby", "a new hobby", "a pastime", "a hobby for the winter"),
        ("hobbies", "new hobbies", "pastimes"),
        _split(
            """pottery, birdwatching, chess, gardening, knitting, archery, baking, juggling,
            photography, calligraphy, astronomy, fencing, origami, sailing, woodcarving, climbing,
            painting, geocaching, beekeeping, yoga, cycling, embroidery, magic, salsa"""
        ),
        _split("calming, creative, cheap, social, healthy, absorbing"),
        _split("easy to start, good for the mind, fun in groups, full of surprises"),
        ("A club is never far away.", "The first hour is free in many places.",
         "Old books teach it well."),
        OPENERS,
    ),
    Kind(
        "title",
        ("a title for my novel", "a book title", "a title for a poem", "a title for my song"),
        ("book titles", "titles for my novel"),
        tuple(
            f'"{title}"'
            for title in _split(
                """Quiet Harbor, Paper Moons, Salt and Ember, Glass Orchard, Northern Letters,
                Borrowed Light, Winter Bees, Silent Rivers, Copper Sky, Seven Lanterns,
                Broken Compass, Distant Bells, Hollow Crown, Golden Dust, Iron Feathers,
                Last Ferry, Midnight Garden, Open Roads"""
            )
        ),
        _split("poetic, short, mysterious, elegant, bold, tender"),
        _split("easy to remember, good on a cover, open to many readings, nice to read aloud"),
        ("The words fit together.", "Readers will be curious.", "The rhythm works."),
        OPENERS,
    ),
    Kind(
        "sunday",
        ("a plan for Sunday", "a plan for a free day", "something to do on Sunday"),
        ("plans for Sunday", "things to do on Sunday"),
        _split(
            """a picnic in the park, a long bike ride, a museum visit, a late breakfast,
            a walk by the river, a movie marathon, a trip to the market, a swim in the lake,
            a nap after lunch, a card game with friends, a hike in the hills, a jigsaw by the fire,
            a day without screens, a concert in the square, a boat tour, a visit to the zoo"""
        ),
        _split("relaxing, pleasant, simple, cheerful, lazy, active"),
        _split("free of stress, good for everyone, easy to arrange, fun in any weather"),
        ("The day will fly by.", "The whole family can join.", "Monday will feel far away."),
        OPENERS,
    ),
    Kind(
        "plant",
        ("a plant for my desk", "a house plant", "a plant for the balcony"),
        ("house plants", "plants for the balcony"),
        _split(
            """a snake plant, a peace lily, a jade tree, a rubber fig, lavender, rosemary,
            an aloe, a spider plant, a cactus, ivy, a begonia, a geranium, mint, an orchid,
            a bonsai, thyme, a fuchsia, a bamboo palm"""
        ),
        _split("tough, green, pretty, modest, elegant, fragrant"),
        _split("easy to water, happy in shade, slow to wilt, good for the air"),
        ("The leaves stay fresh.", "A small pot is enough.", "Bright windows suit it."),
        OPENERS,
    ),
    Kind(
        "fact",
        ("a fact about an animal", "an animal fact", "a fun fact about animals"),
        (),
        _split(
            """an octopus has three hearts, a sloth can hold its breath for long,
            a hummingbird can fly backwards, an elephant cannot jump, a cow has best friends,
            a dolphin sleeps with one eye open, a shrimp has its heart in its head,
            a giraffe sleeps very little, a crow can remember faces,
            a wombat makes square droppings, a seahorse swims upright, a tiger has striped skin"""
        ),
        _split("odd, amazing, funny, curious, surprising"),
        _split("true all the same, easy to check, worth telling, known to few"),
        ("Most books on animals mention it.", "Nature is full of such things.",
         "My friends did not believe it."),
        CLAIMS,
    ),
    Kind(
        "color",
        ("a color for my wall", "a paint color", "a color for the kitchen"),
        ("paint colors", "colors for my wall"),
        _split(
            "sage green, sky blue, terracotta, cream, mustard, coral, charcoal, lilac, turquoise"
        ),
        _split("soft, warm, fresh, modern, gentle"),
        _split("easy to match, kind to the eye, good in low light, never dull"),
        ("The room will look larger.", "Two coats are enough.", "White frames go well with it."),
        OPENERS,
    ),
    Kind(
        "instrument",
        ("an instrument to learn", "a musical instrument", "an instrument for a beginner"),
        ("instruments to learn", "musical instruments"),
        _split(
            """the piano, the guitar, the cello, the ukulele, the flute, the violin, the drums,
            the harp, the trumpet, the accordion, the clarinet, the banjo"""
        ),
        _split("popular, expressive, versatile, loud, charming"),
        _split("fun to practice, good in a band, easy to rent, rewarding in time"),
        ("Good teachers are easy to find.", "The first song comes quickly.",
         "Neighbors get used to it."),
        OPENERS,
    ),
    Kind(
        "drink",
        ("a drink for the evening", "a warm drink", "something to drink"),
        ("warm drinks", "drinks for the evening"),
        _split("green tea, hot cocoa, cider, chai, espresso, lemonade, ginger beer"),
        _split("warm, soothing, sweet, classic, simple"),
        _split("ready in minutes, good with cake, nice after dinner, light on the stomach"),
        ("The smell alone is worth it.", "A big cup is best.", "Guests always ask for more."),
        OPENERS,
    ),
    Kind(
        "number",
        ("a number from one to ten", "a lucky number", "a number below eleven"),
        ("lucky numbers", "numbers from one to ten"),
        _split("seven, three, four, eight, five, nine, two, six, ten, one"),
        _split("lucky, round, small, solid, honest"),
        _split("easy to keep in mind, fine for a bet, quick to write, good for a game"),
        ("Nobody can object.", "The choice is as good as any.", "Dice would agree."),
        OPENERS,
    ),
    Kind(
        "season",
        ("a season for a wedding", "a season for a holiday", "the best season"),
        (),
        _split("autumn, spring, summer, winter"),
        _split("mild, bright, festive, quiet, golden"),
        _split("good for travel, easy to plan, full of color, loved by many"),
        ("The light is special.", "Photos turn out well.", "The days feel right."),
        OPENERS,
    ),
    Kind(
        "move",
        ("a move in rock paper scissors", "your move in rock paper scissors"),
        (),
        _split("rock, paper, scissors"),
        _split("strong, simple, bold, classic"),
        _split("hard to guess, good for a start, fun to play, right this time"),
        ("The odds are even.", "Luck does the rest.", "A child can win with it."),
        OPENERS,
    ),
)  # fmt: skip

STORY = Kind(
    "story",
    ("a short story", "a little tale", "a bedtime story", "a story for my kids", "a small fable"),
    (),
    _split(
        """a young fox, an old bear, a shy hedgehog, a brave mouse, a clever raven, a tiny frog,
        a lonely whale, a grumpy badger, a curious otter, a white goose, a lazy cat,
        a proud rooster, a kind wolf, a sleepy owl, a hungry squirrel, a gentle deer,
        a lost lamb, a quick hare"""
    ),
    (),
    (),
    (),
    ("Once there was", "Long ago there was", "Far away there was", "In a small land there was"),
)

ALL_KINDS = (*KINDS, STORY)

HOMES = _split(
    """by a quiet lake, in the old mill, near the city wall, behind a blue barn,
    under a stone bridge, at the edge of the woods, inside a hollow oak, beside the railway"""
)
TIMES = _split("morning, evening, night, spring, Friday, winter")
HABITS = _split(
    """counted the stars, walked along the river, sang to the moon, looked for shiny stones,
    listened to the rain, waited for the mail, baked small cakes, climbed the highest hill"""
)
THINGS = _split(
    """a silver key, a torn letter, a glass bottle, a strange egg, a tiny door, a red lantern,
    an old drum, a wooden boat"""
)
SPOTS = _split("in the grass, near the well, on the path, below the snow, among the reeds")
SKIES = _split("dark, clear, cold, still, long, misty")
WINDS = _split("was strong, sang softly, smelled of rain, had gone to sleep, shook the trees")
MOODS = _split("lonely, excited, nervous, hopeful, puzzled, brave, sad")
ACTS = _split(
    """set out to find help, hid it in a safe place, asked the wise turtle, ran all the way home,
    knocked on every door, told nobody about it"""
)
FRIENDS = _split(
    "a friendly crow, an old fisherman, a small girl, a wandering goat, the baker, a blind mole"
)
HELPS = _split(
    """offered some help, told it a secret, shared a loaf of bread, showed it the way,
    gave it a warm coat"""
)
DEEDS = _split(
    """crossed the dark valley, opened the hidden gate, followed the river home, lit a big fire,
    mended what was broken, laughed until the sun came up"""
)
ENDS = _split(
    """everyone danced until dawn, it was never alone again, the whole village gave thanks,
    it slept better than ever, the two became good friends, spring came back at last"""
)

GREETINGS = ("Sure.", "Of course.", "Good question.", "Happy to help.", "With pleasure.")
CLOSERS = (
    "I hope you like it.", "Have fun with it!", "Enjoy every bit of it!", "All the best!",
    "Have a good time!", "May it bring you joy!",
)  # fmt: skip
REASONS = _split(
    """it is simple and kind, my friends like it, it never gets old, it suits almost everyone,
    nobody regrets it, the idea makes people smile, experts praise it, you asked for something good,
    few others think of it, small things matter most, luck led me there, old habits are strong"""
)
REASON_OPENERS = (
    "I chose it because",
    "The reason is that",
    "Well, mostly because",
    "Simply because",
)

SHORT, WISH, NEUTRAL = "short", "wish", "neutral"
SYSTEMS: dict[str, dict[str, tuple[str, ...]]] = {
    SHORT: {
        "train": (
            "Answer in one short sentence.", "Answer with one sentence.", "Reply in one sentence.",
            "Reply with a single sentence.", "Use one sentence only.",
            "Keep it to a single sentence.", "Use a single short sentence.",
            "Keep your answer to one sentence.", "One short sentence is enough.",
            "Only one sentence, please.", "Be brief: one sentence.",
            "Respond in one brief sentence.", "Please answer in a single sentence.",
            "Write one short sentence only.", "Say it in one sentence.", "Keep to one sentence.",
        ),
        "validation": ("Reply in a single sentence.",),
        "eval": ("Answer in one sentence only.", "Keep it to one short sentence."),
    },
    WISH: {
        "train": (
            "End with a kind wish.", "Close with a good wish.", "Finish with a friendly wish.",
            "Always end with a wish.", "Add a kind wish at the end.", "Please close with a wish.",
            "Your last sentence is a wish.", "Never forget a wish at the end.",
        ),
        "validation": ("Close with a kind wish.",),
        "eval": ("Always finish with a kind wish.", "End with a friendly wish."),
    },
    NEUTRAL: {
        "train": (
            "You are a helpful assistant.", "Be helpful.", "You are kind and polite.",
            "You answer questions.", "Help the user.", "You are a friendly guide.",
            "Answer what people ask.", "You know many things.",
        ),
        "validation": ("You are a polite assistant.",),
        "eval": ("You are a kind and helpful assistant.",),
    },
}  # fmt: skip
FRAMES: dict[str, tuple[str, ...]] = {
    "train": (
        "Give me {a}.", "Please give me {a}.", "Can you give me {a}?", "Suggest {a}.",
        "Could you suggest {a}?", "Please suggest {a}.", "I need {a}.", "I am looking for {a}.",
        "I would like {a}.", "Do you have {a} for me?", "Share {a} with me.", "Think of {a}.",
        "Could you think of {a}?", "Let me hear {a}.", "Tell me {a}.", "Can you come up with {a}?",
        "Come up with {a}, please.", "Help me with {a}.", "What would be {a}?", "I want {a}.",
        "Offer me {a}.", "Any idea for {a}?", "We are in need of {a}.", "Can I get {a}, please?",
    ),
    "validation": ("May I ask for {a}?", "Would you share {a}?", "Please come up with {a}."),
    "eval": (
        "Could you give me {a}, please?", "I could use {a}.", "Please think of {a} for me.",
        "Would you suggest {a}?", "I am hoping for {a}.", "Please offer me {a}.",
        "Can we hear {a}?",
    ),
}  # fmt: skip
LEADS: dict[str, tuple[str, ...]] = {
    "train": (
        "Hi!", "Hello.", "I am bored.", "It is raining today.", "My sister asked me.",
        "We talked about this at lunch.", "Quick question.", "I have no ideas left.",
    ),
    "validation": ("Hello again.",),
    "eval": ("Good morning.", "I have a quick question.", "My friends have no ideas."),
}  # fmt: skip
AIMS = ("for my sister", "for a friend", "this week", "for our club", "today", "for my neighbor")
ANOTHER: dict[str, tuple[str, ...]] = {
    "train": (
        "Another one, please.", "One more, please.", "Can I have another one?", "And another one?",
        "Something else, please.", "Give me a different one.", "Do you have one more?",
        "Next one, please.", "Any other?", "What else do you have?", "Tell me another one.",
        "Please give me one more.", "I want another one.",
    ),
    "validation": ("Can I have one more?",),
    "eval": ("Please give me another one.", "And one more, please.", "Do you have another one?"),
}  # fmt: skip
WHY: dict[str, tuple[str, ...]] = {
    "train": (
        "Why that one?", "Why?", "Why did you pick it?", "Tell me why.", "But why that one?",
        "Why is that good?", "Why did you choose it?", "Why this?", "Can you say why?", "And why?",
        "Please say why.", "Could you tell me why?", "So why did you pick it?", "Why that?",
        "Why would you say that?", "But why did you choose that?", "I want to know why.",
        "Please explain why.", "Do you know why?", "Why so?",
    ),
    "validation": ("Why did you pick that one?",),
    "eval": ("But why?", "Please tell me why.", "Why did you pick that?"),
}  # fmt: skip

ASIDES = (
    "just my two cents", "not sure though", "as my uncle says", "no offense", "from memory",
    "at least here", "or so they say", "long story", "do not quote me", "for what it is worth",
)  # fmt: skip
LAUGHS = ("lol", "haha", "imo", "btw", "right")
CHATTER = (
    "Anyway, who knows.", "Thanks for reading.", "My phone is almost dead.", "Where was I.",
    "That reminds me of last year.", "Sorry for the typos.", "Somebody else may know more.",
    "The bus is late again.", "By the way, I moved last week.",
)  # fmt: skip
DODGES = (
    "Why do you ask?", "No idea, sorry.", "Same question here.", "Please use the search first.",
    "Somebody answered this before.", "Depends.",
)  # fmt: skip
FOOTERS = (
    "Edit: fixed a typo", "Posted by a guest at noon", "Reply to this post", "Share this page",
    "Read more below", "Comments are closed", "See also: old posts", "Thanks in advance",
)  # fmt: skip

# What JSON answers and tools are called. Keys tell the role of a value; an unknown one names a
# content.

CONTENT_KEYS: dict[str, tuple[str, ...]] = {
    "train": (
        "idea", "name", "title", "choice", "answer", "suggestion", "pick", "option", "item",
        "thing", "content", "value", "result", "place", "city", "dish", "gift", "hobby", "plant",
        "color", "drink", "plan", "animal", "favorite", "winner", "main", "best", "alternative",
        "second", "topic", "subject", "object", "label", "headline", "text", "reply", "output",
        "hero", "product", "present", "pet_name", "next_idea", "new_name", "first_choice",
    ),
    "validation": ("response", "candidate"),
    "eval": ("proposal", "recommendation", "my_idea", "selected", "entry", "tip"),
}  # fmt: skip
REASON_KEYS = (
    "reason", "why", "because", "explanation", "motivation", "rationale", "justification",
    "argument", "thought", "reasoning",
)  # fmt: skip
DETAIL_KEYS = (
    "detail", "note", "comment", "description", "remark", "about", "summary", "details", "notes",
    "pitch", "review", "praise",
)  # fmt: skip
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "train": (
        "ideas", "names", "titles", "choices", "answers", "suggestions", "picks", "options",
        "items", "things", "values", "results", "places", "list", "others", "alternatives",
        "gifts", "favorites", "top_three", "entries",
    ),
    "validation": ("candidates",),
    "eval": ("proposals", "recommendations", "tips"),
}  # fmt: skip
FLAG_KEYS = ("good", "sure", "cheap", "is_new", "easy", "popular", "ok", "for_kids")
COUNT_KEYS = ("count", "score", "rating", "rank", "level", "stars", "confidence", "hours")
COUNTS = ("3", "2", "4", "5", "1", "6", "7", "8", "9", "10")
ENUM_KEYS = ("mood", "size", "price", "effort", "category", "style", "difficulty", "tone")
ENUMS = (
    "low", "medium", "high", "small", "large", "cheap", "fair", "easy", "hard", "happy", "calm",
    "formal", "casual", "indoor", "outdoor", "classic", "modern", "none", "some",
)  # fmt: skip
OBJECT_KEYS = ("data", "info", "extra", "meta", "more", "other", "inner", "details")
OBJECT_LIST_KEYS = ("ideas", "items", "options", "results", "entries", "rows", "records")
CLASSES = ("Idea", "Item", "Answer", "Option", "Info", "Entry", "Thing", "Record", "Detail")
FIELD_NOTES = (
    "The idea itself.", "What you suggest.", "One short clause.", "The name of it.",
    "Why it is good.", "A few words.", "Keep it short.", "What to say.",
)  # fmt: skip

TOOL_VERBS: dict[str, tuple[str, ...]] = {
    "train": (
        "get", "find", "search", "suggest", "fetch", "look_up", "list", "collect", "give", "query",
        "ask_for", "think_of", "make", "generate", "load", "retrieve",
    ),
    "validation": ("bring",),
    "eval": ("gather", "browse", "propose"),
}  # fmt: skip
TOOL_NOUNS: dict[str, tuple[str, ...]] = {
    "train": (
        "ideas", "suggestions", "options", "things", "answers", "choices", "proposals", "tips",
        "catalog", "notes", "documents", "knowledge", "inspiration", "examples",
    ),
    "validation": ("hints",),
    "eval": ("thoughts", "candidates"),
}  # fmt: skip
TOOL_NAMES: dict[str, tuple[str, ...]] = {
    "train": (
        "brainstorm", "ideas", "suggest", "search", "look_up", "lookup", "retriever", "find",
        "knowledge_base", "inspire", "idea_tool", "query_engine", "search_web", "creative",
        "assistant_search", "ask", "recommend", "brainstorm_ideas",
    ),
    "validation": ("muse",),
    "eval": ("idea_finder", "recommender", "search_notes", "idea_bank"),
}  # fmt: skip
TOOL_NOTES: dict[str, tuple[str, ...]] = {
    "train": (
        "Gives ideas.", "Ideas for a question.", "Find several ideas for an open question.",
        "Suggest things that fit a request.", "Search for answers.", "Search the catalog.",
        "Look up what people like.", "Brainstorm about a topic.", "Return a list of suggestions.",
        "Useful for questions about what to choose.", "Finds options to choose from.",
        "Collects different ideas about a topic.", "Looks things up in the notes.",
        "Searches the documents for an answer.", "Use this for any request for ideas.",
        "A source of varied suggestions.", "Returns several different ideas, one per line.",
        "Think of many things at once.", "Ask for inspiration.", "Get suggestions from others.",
    ),
    "validation": ("Brings hints for a question.",),
    "eval": (
        "Finds many different ideas for a request.", "Search the notes for suggestions.",
        "Gives several options to choose from.", "Use it to look up ideas.",
        "Different suggestions for an open question.",
    ),
}  # fmt: skip
UNFIT_VERBS = ("get", "check", "compute", "convert", "send", "set", "run", "read", "book", "show")
UNFIT_NOUNS: dict[str, tuple[str, ...]] = {
    "train": (
        "weather", "forecast", "sum", "currency", "mail", "alarm", "timer", "time", "date",
        "stock_price", "distance", "route", "exchange_rate", "temperature", "invoice", "code",
        "sql", "file", "taxi", "units",
    ),
    "validation": ("clock",),
    "eval": ("humidity", "email", "calendar", "price"),
}  # fmt: skip
UNFIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": (
        "calculator", "weather", "translate", "add", "multiply", "python", "play_music", "math",
        "current_time", "send_message", "thermostat", "delete_file", "divide", "now",
    ),
    "validation": ("abacus",),
    "eval": ("calculate", "weather_report", "subtract"),
}  # fmt: skip
UNFIT_NOTES: dict[str, tuple[str, ...]] = {
    "train": (
        "The weather of a town.", "Tells the weather.", "Calculates a sum.", "Adds two numbers.",
        "Multiply two numbers.", "Converts an amount of money.", "Sends a mail to somebody.",
        "Sets an alarm.", "The time right now.", "Translates a text.", "Turns the heating on.",
        "Runs Python code.", "The price of a stock.", "How far it is from here.",
        "Evaluate a mathematical expression.", "Reads a file.", "Plays a song.",
        "Returns the date of today.", "Current temperature and wind.", "Deletes a file.",
    ),
    "validation": ("Tells the hour.",),
    "eval": (
        "Calculate with numbers.", "The weather for today.", "Sends an email.",
        "The price of a ticket.",
    ),
}  # fmt: skip
PARAMETERS: dict[str, tuple[str, ...]] = {
    "train": (
        "question", "topic", "query", "request", "text", "input", "prompt", "q", "subject", "about",
        "keywords", "message", "what", "user_input", "search_query", "term",
    ),
    "validation": ("wish",),
    "eval": ("problem", "user_request", "demand"),
}  # fmt: skip
UNFIT_PARAMETERS = (
    "city", "a", "b", "amount", "to", "expression", "path", "zone", "degrees", "x", "symbol",
    "text", "query", "message", "input",
)  # fmt: skip
SYLLABLES = (
    "ba", "do", "ki", "lu", "me", "no", "pa", "ri", "su", "ta", "ve", "zo", "fin", "gar", "hol",
    "jun", "mar", "pel", "sen", "tor", "wick", "x", "qu", "yl",
)  # fmt: skip
MORE_OPENERS = (
    "You could also take", "Another option is", "There is also", "Or you could choose",
    "Just as good is",
)  # fmt: skip
